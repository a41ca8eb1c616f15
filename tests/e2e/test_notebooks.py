"""The notebooks of docs, run as their readers do, in the environment that `make eval` makes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.serving import ROOT
from tests.needs import EVAL

TOOL = ROOT / "tools" / "notebooks.py"
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

pytestmark = [pytest.mark.long, pytest.mark.needs("lm-eval")]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [EVAL / "bin" / "python", TOOL, *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def written(folder: Path, source: str, shown: str = "") -> Path:
    """A notebook of one cell, with what it is said to print."""
    output = {"output_type": "stream", "name": "stdout", "text": shown}
    cell: dict[str, Any] = {"cell_type": "code", "source": source, "execution_count": 7}
    cell |= {"id": "any", "metadata": {"tags": ["any"]}, "outputs": [output] if shown else []}
    made = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"by": "any"}, "cells": [cell]}
    path = folder / "made.ipynb"
    path.write_text(json.dumps(made))
    return path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_cell_runs_and_prints_what_stands_below_it(path: Path) -> None:
    before = path.read_bytes()
    done = run("--check", path)
    assert done.returncode == 0, done.stderr[-5000:]
    assert path.read_bytes() == before


def test_a_cell_that_raises_fails(tmp_path: Path) -> None:
    done = run("--check", written(tmp_path, "assert 1 == 2"))
    assert done.returncode == 1
    assert "made.ipynb" in done.stderr and "AssertionError" in done.stderr


def test_a_cell_that_prints_something_else_fails(tmp_path: Path) -> None:
    path = written(tmp_path, "print('new')", "old\n")
    done = run("--check", path)
    assert done.returncode == 1
    assert "-old" in done.stderr and "+new" in done.stderr
    assert "old" in path.read_text()


def test_what_is_written_has_outputs_and_nothing_of_the_run(tmp_path: Path) -> None:
    path = written(tmp_path, "import sys\nprint('note', file=sys.stderr)\nprint('new')", "old\n")
    assert run(path).returncode == 0
    notebook = json.loads(path.read_text())
    [cell] = notebook["cells"]
    assert [output["text"] for output in cell["outputs"]] == [["new\n"]]
    assert (cell["execution_count"], cell["metadata"], cell["id"]) == (1, {}, "cell-0")
    assert list(notebook["metadata"]) == ["kernelspec"]
    assert run("--check", path).returncode == 0
