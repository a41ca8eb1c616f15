"""``pythia-bento sweep`` on the bundled steps: files, going on, parts, and what goes wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from pythia_bento.sweep.files import Recorder
from pythia_bento.sweep.table import read_rows
from tests.amounts import amounts, rest_long
from tests.forkserver import CONTEXT
from tests.integration.sweep_child import child
from tests.integration.sweeping import NAMES, damage, steps, texts
from tests.unit.cli.test_cli import Cli

__all__ = ["steps"]  # a fixture


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)  # where there is no lock
    monkeypatch.setenv("PYTHIA_DEVICE", "cpu")
    write(tmp_path / "items.jsonl", texts(20))
    return Cli(capsys)


def write(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


OF_STEPS = [f"model=bundled/{name.partition('@step')[2].zfill(6)}" for name in NAMES]
PLACES = [place.replace("/", "/step=") for place in OF_STEPS]
SWEEP = ("sweep", "bundled", "--items", "items.jsonl", "--output")


def test_a_file_a_step_and_the_same_command_goes_on(cli: Cli, tmp_path: Path) -> None:
    status, out, err = cli(*SWEEP, "some", "--steps", "64,256", "--tokens")
    assert (status, out) == (0, "2 checkpoints, 40 rows in some; 0 were there already\n")
    assert "checkpoints" in err and "2/2" in err and "40/40" in err
    some = files(tmp_path / "some")
    status, out, _ = cli(*SWEEP, "some", "--tokens")
    assert (status, out) == (0, "4 checkpoints, 80 rows in some; 2 were there already\n")
    whole = files(tmp_path / "some")
    assert sorted(whole) == [*(f"{place}.parquet" for place in PLACES), "sweep.json"]
    assert all(whole[name] == some[name] for name in some if name != "sweep.json")
    (tmp_path / "some" / f"{PLACES[3]}.parquet").write_bytes(whole[f"{PLACES[3]}.parquet"][:-9])
    status, out, _ = cli(*SWEEP, "some", "--tokens")
    assert (status, out) == (0, "1 checkpoints, 20 rows in some; 5 were there already\n")
    assert files(tmp_path / "some") == whole
    status, out, err = cli(*SWEEP, "some", "--tokens")
    assert out == "0 checkpoints, 0 rows in some; 6 were there already\n"
    assert "loading" not in err  # nothing is to be computed, so no model is
    table = pyarrow.parquet.read_table(tmp_path / "some" / "model=bundled")
    assert table.num_rows == 120
    assert set(table.column("step").to_pylist()) == {0, 64, 256, 512, 1000, 3000}


def test_both_formats_have_the_same_rows(cli: Cli, tmp_path: Path) -> None:
    for suffix in ("parquet", "jsonl"):
        cli(*SWEEP, suffix, "--steps", "64", "--tokens", "--format", suffix)
    found = [list(read_rows(tmp_path / one / f"{PLACES[1]}.{one}")) for one in ("parquet", "jsonl")]
    assert found[0] == found[1]


def test_single_checkpoints_and_continuations(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "prompts.jsonl", [{"prompt": "Once upon"}])
    status, _, _ = cli(
        *("sweep", "bundled@step64", "bundled@main", "--items", "prompts.jsonl", "--output", "x"),
        *("--task", "generate", "--max-tokens", "4", "--temperature", "0", "--format", "jsonl"),
    )
    assert status == 0
    found = {
        path.name: json.loads(path.read_text().splitlines()[1])
        for path in (tmp_path / "x" / "model=bundled").iterdir()
    }
    assert set(found) == {"step=000064.jsonl", "revision=main.jsonl"}
    assert found["revision=main.jsonl"]["text"].startswith(" a time")
    assert found["revision=main.jsonl"]["num_tokens"] == 4


def test_a_missing_and_a_damaged_step_are_two_lines(cli: Cli, tmp_path: Path, steps: Path) -> None:
    damage(steps, "step256")
    status, out, err = cli(*SWEEP, "x", "--steps", "64,128,256,512", "--format", "jsonl")
    assert (status, out) == (1, "2 checkpoints, 40 rows in x; 0 were there already\n")
    missing, damaged = [line for line in err.splitlines() if line.startswith("error: ")]
    assert missing.startswith("error: bundled@step128: ")
    assert damaged.startswith("error: bundled@step256: bundled@step256 will not be served: model.")
    assert sorted(files(tmp_path / "x")) == [
        "model=bundled/step=000064.jsonl",
        "model=bundled/step=000512.jsonl",
        "sweep.json",
    ]
    status, out, err = cli("sweep", "--merge", "--output", "x")
    assert (status, out) == (1, "2 of 4 checkpoints are complete in x\n")
    assert "error: bundled@step256: its file is missing" in err


def test_the_first_step_may_be_the_damaged_one(cli: Cli, tmp_path: Path, steps: Path) -> None:
    damage(steps, "step0")
    status, out, err = cli(*SWEEP, "x", "--steps", "0,64", "--format", "jsonl")
    assert (status, out) == (1, "1 checkpoints, 20 rows in x; 0 were there already\n")
    assert err.count("error: bundled@step0: ") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sweep", "bundled", "--output", "x"), "a sweep needs NAMES and --items"),
        (("sweep", "--items", "items.jsonl", "--output", "x"), "a sweep needs NAMES and --items"),
        ((*SWEEP, "x", "--steps", "7:3:1"), "FROM must be at most TO"),
        ((*SWEEP, "x", "--shard", "4/4"), "shard must be I/N"),
        ((*SWEEP, "x", "--share"), "--share is no option of --task score"),
        ((*SWEEP, "x", "--task", "extract", "--max-tokens", "0"), "tokens must be greater than"),
        (
            (*SWEEP, "x", "--task", "extract", "--seed", "0"),
            "--seed is no option of --task extract",
        ),
        (("sweep", "bundle", *SWEEP[2:], "x"), "there is no model 'bundle'; the nearest are"),
        (("sweep", "pythia-14m", *SWEEP[2:], "x"), "no step of pythia-14m is here"),
        (("sweep", "bundled@step0", *SWEEP[2:], "x", "--steps", "0"), "--steps is for models"),
        ((*SWEEP, "x", "--server", "ftp://x"), "--server: url must begin with http"),
        (("sweep", "bundled", "--items", "bad.jsonl", "--output", "x"), "bad.jsonl, line 2: prom"),
        (("sweep", "--merge", "--output", "x"), "nothing was swept into x"),
    ],
)
def test_input_at_fault_is_one_line_and_status_2(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    write(tmp_path / "bad.jsonl", [{"prompt": "a"}, {"id": "b"}])
    status, out, err = cli(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not (tmp_path / "x").exists()


def test_a_model_that_was_not_pulled_is_a_line(cli: Cli, tmp_path: Path) -> None:
    status, _, err = cli("sweep", "pythia-14m", *SWEEP[2:], "x", "--steps", "0")
    assert status == 1
    assert "error: pythia-14m@step0: pythia-14m@step0 is not in the store; `pythia-" in err


def test_a_directory_of_another_sweep_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    cli(*SWEEP, "x", "--steps", "0", "--format", "jsonl")
    before = files(tmp_path / "x")
    status, _, err = cli(*SWEEP, "x", "--steps", "0", "--format", "jsonl", "--tokens")
    assert status == 2
    assert "error: x has another sweep, of other items or another task; choose another" in err
    assert files(tmp_path / "x") == before


def test_without_pyarrow_lines_are_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = cli(*SWEEP, "x", "--steps", "0")
    assert status == 1 and err == (
        "error: sweeps write Parquet with pyarrow, which is not installed; pip install "
        "'pythia-bento[sweep]', or --format jsonl\n"
    )
    status, _, _ = cli(*SWEEP, "x", "--steps", "0", "--format", "jsonl")
    assert status == 0


def test_rows_with_errors_are_told(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "long.jsonl", [{"prompt": "a"}, {"prompt": [5] * 600}])
    status, _, err = cli(
        *("sweep", "bundled@step0", "--items", "long.jsonl", "--output", "x", "--format", "jsonl")
    )
    assert status == 0
    assert "warning: 1 rows have an error in place of the rest" in err
    [_, _, line] = (tmp_path / "x" / f"{PLACES[0]}.jsonl").read_text().splitlines()
    assert json.loads(line)["error"].startswith("prompt has 600 tokens, but the model's context")


def test_ctrl_c_ends_after_the_checkpoint_and_the_same_command_goes_on(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Recorder.record

    def interrupted(self: Recorder, event: Any) -> None:
        record(self, event)
        if self.num_rows == 5:
            os.kill(os.getpid(), signal.SIGINT)
            self.num_rows += 1  # once

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "record", interrupted)
        status, _, err = cli(*SWEEP, "x")
    assert status == 1
    assert "ending after this checkpoint; Ctrl-C again ends at once" in err
    assert err.endswith("error: interrupted; the same command goes on\n")
    assert sorted(files(tmp_path / "x")) == [f"{PLACES[0]}.parquet", "sweep.json"]
    status, out, _ = cli(*SWEEP, "x")
    assert (status, out) == (0, "5 checkpoints, 100 rows in x; 1 were there already\n")
    cli(*SWEEP, "y")
    assert files(tmp_path / "x") == files(tmp_path / "y")


def run(arguments: list[str], moments: int | None = None) -> int | None:
    process = CONTEXT.Process(target=child, args=(arguments, moments))
    process.start()
    process.join(300)
    return process.exitcode


ACTIVATIONS = ("--task", "activations", "--capture", "blocks.1.hook_resid_post")


@pytest.mark.parametrize("task", [("--tokens",), ACTIVATIONS], ids=["score", "activations"])
@amounts(3, 12)
def test_killed_sweeps_end_with_the_same_files(
    tmp_path: Path, amount: int, task: tuple[str, ...]
) -> None:
    """``amount`` times; files of a sweep that had ended in between are taken away again."""
    items, rng, kills = write(tmp_path / "items.jsonl", texts(25)), random.Random(20), 0
    command = ["sweep", "bundled", *task, "--items", str(items), "--output"]
    assert run([*command, str(tmp_path / "a")]) == 0
    wanted = files(tmp_path / "a")
    while kills < amount:
        code = run([*command, str(tmp_path / "b")], rng.randrange(1, 190))
        if code == 0:
            assert files(tmp_path / "b") == wanted
            for name in rng.sample(sorted(wanted), 4):
                (tmp_path / "b" / name).unlink()
        else:
            assert code == -signal.SIGKILL
            kills += 1
    assert run([*command, str(tmp_path / "b")]) == 0
    assert files(tmp_path / "b") == wanted


@pytest.mark.parametrize("by", rest_long(["checkpoints"], ["items"]))
def test_four_shards_in_four_processes_are_one_sweep(cli: Cli, tmp_path: Path, by: str) -> None:
    items = write(tmp_path / "items.jsonl", texts(25))
    command = ["sweep", "bundled", "--items", str(items), "--output"]
    processes = []
    for index in range(4):
        shard = ["--shard", f"{index}/4", "--shard-by", by]
        arguments = [*command, str(tmp_path / "four"), *shard]
        processes.append(CONTEXT.Process(target=child, args=(arguments, None)))
        processes[-1].start()
    assert run([*command, str(tmp_path / "one")]) == 0
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * 4
    status, out, _ = cli("sweep", "--merge", "--output", "four")
    assert (status, out) == (0, "6 of 6 checkpoints are complete in four\n")
    assert files(tmp_path / "four") == files(tmp_path / "one")
