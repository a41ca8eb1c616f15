"""Run the notebooks of docs: ``.venv-eval/bin/python tools/notebooks.py [--check] [NOTEBOOK...]``.

What their cells show is written into the files, without times, paths and what went to stderr.
``--check`` writes nothing: it fails where a cell raises, as it does without, or prints something
else than stands there. Pictures are not compared, as their bytes depend on fonts.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"
COLOURS = re.compile(r"\x1b\[[\d;]*m")
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    options = parser.parse_args()
    paths = options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    with tempfile.TemporaryDirectory() as folder:
        set_environment(folder)
        faults = [fault for path in paths for fault in run(path, is_check=options.check)]
    sys.exit("\n".join(faults) or 0)


def set_environment(folder: str) -> None:
    """For kernels: this checkout's package on a CPU, no model hub, and nobody's own settings."""
    os.environ |= {
        "PYTHONPATH": str(ROOT),
        "PYTHIA_DEVICE": "cpu",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": folder,
        "IPYTHONDIR": folder,
        "JUPYTER_RUNTIME_DIR": folder,
    }


def run(path: Path, *, is_check: bool) -> list[str]:
    """What is wrong with a notebook; without ``is_check`` it is written anew."""
    before = nbformat.read(path, as_version=4)
    after = nbformat.from_dict(before)
    client = NotebookClient(
        after,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": ROOT}},
        # No port that others on this machine could reach.
        config=Config(KernelManager={"transport": "ipc"}),
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return [f"{path.name}: {COLOURS.sub('', str(error))}"]
    clean(after)
    if is_check:
        return [f"{path.name}: {line}" for line in differences(before, after)]
    nbformat.write(after, path)
    return []


def clean(notebook: Any) -> None:
    """Keep what depends on the notebook alone."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for index, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{index}", nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def differences(before: Any, after: Any) -> Iterator[str]:
    """Lines that cells print now beside those that stand there."""
    for shown, printed in zip(before.cells, after.cells, strict=True):
        lines = [text_of(cell).splitlines() for cell in (shown, printed)]
        yield from difflib.unified_diff(*lines, "stands there", "printed", n=0, lineterm="")


def text_of(cell: Any) -> str:
    """What a cell shows as text; of a picture that it is one."""
    parts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        is_picture = "image/png" in data
        parts.append("(picture)\n" if is_picture else output.get("text", data.get("text/plain")))
    return "".join(parts)


if __name__ == "__main__":
    main()
