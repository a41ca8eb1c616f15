"""``pythia-bento sweep --server``: the files of a server's answers are those made without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pythia_bento.sweep.columns import COLUMNS
from pythia_bento.sweep.table import read_metadata, read_rows
from tests.e2e.serving import Server, free_port
from tests.integration.sweeping import texts
from tests.integration.test_cli_sweep import PLACES, files, write
from tests.unit.cli.test_cli import Cli

STEPS = ("--steps", "64,128,3000", "--format", "jsonl")
TASKS = {
    "score": ("--tokens",),
    "extract": ("--prompt-tokens", "3", "--max-tokens", "4", "--share"),
    "generate": ("--max-tokens", "5", "--temperature", "0.8", "--seed", "7", "--tokens"),
}


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHIA_DEVICE", "cpu")
    items = texts(15)
    write(tmp_path / "items.jsonl", [*items, {"id": "long", "prompt": [5] * 600}])
    return Cli(capsys)


@pytest.mark.parametrize("task", TASKS)
def test_a_server_is_asked_for_the_same(
    server: Server, cli: Cli, tmp_path: Path, task: str
) -> None:
    """Ranks are the one thing that it does not tell."""
    command = ("sweep", "bundled", "--items", "items.jsonl", "--task", task, *TASKS[task], *STEPS)
    urls = {"http": server.url, "grpc": f"grpc://127.0.0.1:{server.grpc_port}"}
    assert cli(*command, "--output", "here").status == 1
    for name, url in urls.items():
        status, out, err = cli(*command, "--output", name, "--server", url)
        assert (status, out) == (1, f"2 checkpoints, 32 rows in {name}; 0 were there already\n")
        assert "error: bundled@step128: " in err
        for place in (f"{PLACES[1]}.jsonl", f"{PLACES[5]}.jsonl"):
            there, here = tmp_path / name / place, tmp_path / "here" / place
            assert read_metadata(there) == read_metadata(here)
            ranks = list(COLUMNS).index("ranks")
            wanted = [(*row[:ranks], None, *row[ranks + 1 :]) for row in read_rows(here)]
            assert list(read_rows(there)) == wanted
    status, out, _ = cli(*command, "--output", "here", "--server", server.url)
    assert out == "0 checkpoints, 0 rows in here; 2 were there already\n"
    assert files(tmp_path / "here").keys() == files(tmp_path / "http").keys()


def test_no_server_is_one_line(cli: Cli) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    command = ("sweep", "bundled", "--items", "items.jsonl", "--output", "x", *STEPS)
    status, _, err = cli(*command, "--server", url)
    assert status == 1
    assert err.startswith("error: ") and err.count("\n") == 1
