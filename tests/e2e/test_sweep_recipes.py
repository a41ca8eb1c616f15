"""docs/sweeps.md, executed: every command and program in order, as one reader would run them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.e2e.serving import ROOT
from tests.e2e.test_readme import Block, blocks_of, lines

PAGE = (ROOT / "docs" / "sweeps.md").read_text()
OF_SERVERS = ("## Over HTTP and gRPC", "## The page")  # whose blocks have a server, and their tests
LANGUAGES = ("bash", "python")


def blocks() -> list[Block]:
    """Those of all headings that need no server."""
    parts = PAGE.split("\n## ")
    kept = [part for part in parts if not f"## {part}".startswith(OF_SERVERS)]
    return [block for part in kept for block in blocks_of(part)]


def run(block: Block, commands: Path, folder: Path) -> str:
    shell = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [commands / "python", "-c"]}
    environment = {
        **os.environ,
        "BENTOML_HOME": str(folder / "home"),
        "PYTHIA_DEVICE": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [*shell[block.language], block.code.replace(".venv/bin", str(commands))],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_s_blocks_print_what_stands_below_them(commands: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    found = blocks()
    assert {block.language for block in found} <= {*LANGUAGES, "sh", "text", "dockerfile"}
    shown = 0
    for block, following in zip(found, [*found[1:], Block("", "")], strict=True):
        if block.language not in LANGUAGES:
            continue
        printed = run(block, commands, tmp_path)
        if following.language == "text":
            assert lines(printed) == lines(following.code), block.code
            shown += 1
    assert shown == sum(block.language == "text" for block in found) >= 7
