"""The notebooks as they are kept: what their cells showed, and nothing of who ran them.

``tests/e2e/test_notebooks.py`` runs them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[3] / "docs" / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
OUTPUTS = {"stream", "display_data", "execute_result"}
LARGEST = 200_000  # bytes


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_cell_was_run_in_order_and_none_raised(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds and kinds <= OUTPUTS
    assert "assert " in cells[-1]["source"] or "assert " in "".join(cells[-1]["source"])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_they_are_small_and_say_nothing_of_the_machine(path: Path) -> None:
    text = path.read_text()
    assert len(text) < LARGEST
    notebook = json.loads(text)
    assert notebook["metadata"] == {"kernelspec": KERNEL}
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    assert not re.search(r'(?<![\w/.`:])/(home|root|tmp|usr|work)/|"name": "stderr"', text)


def test_the_index_of_pages_has_them() -> None:
    index = (NOTEBOOKS.parent / "README.md").read_text()
    assert len(PATHS) == 2
    for path in PATHS:
        assert f"(notebooks/{path.name}): " in index


def test_there_are_plots() -> None:
    pictures = {path.stem: path.read_text().count('"image/png"') for path in PATHS}
    assert pictures == {"evaluation": 1, "training": 2}
