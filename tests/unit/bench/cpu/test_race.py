from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.common.report import DECODE_1, LOAD, OURS, PREFILL, SCORE, Result, goals, table
from bench.cpu.__main__ import _report
from bench.cpu.race import Race, tasks
from bench.peers.process import Engine, how

MODEL = "pythia-160m"


class Fake(Engine):
    """One of ``peer.py``."""

    def command(self, what: str, checkpoint: Path) -> list[str]:
        return [sys.executable, "-m", "tests.unit.bench.cpu.peer", what, "here", self.variant]


def peer(variant: str, *batches: int) -> Fake:
    return Fake(f"peer {variant}", "", variant, linear_bytes=1, head_bytes=2, batches=batches)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    folder = tmp_path_factory.mktemp("race")
    with Race(MODEL, folder / MODEL, rounds=1) as race:
        for engine in (peer("good", 4, 8, 16), peer("crash"), peer("no-load"), peer("no-prepare")):
            race.enter(engine)
        for task in tasks(MODEL, texts=64):
            race.run(task)
    return race.results


def test_a_peer_that_dies_is_a_row_that_says_how(results: list[Result]) -> None:
    ended = {result.engine: (result.task, result.ended) for result in results if result.ended}
    assert ended == {
        "peer crash": (DECODE_1, "killed by SIGILL"),
        "peer no-load": (LOAD, "exit status 1: this model is not for me"),
        "peer no-prepare": (LOAD, "exit status 3: no output"),
    }


def test_the_others_go_on(results: list[Result]) -> None:
    good = {result.task: result for result in results if result.engine == "peer good"}
    assert [*good] == [LOAD, *(task.name for task in tasks(MODEL))]
    assert good[DECODE_1].tokens_per_s == 64
    assert good[PREFILL].tokens_per_s == 512
    assert (good[SCORE].batch, good[SCORE].tokens_per_s) == (8, 128)


def test_all_of_it_is_in_the_table(results: list[Result]) -> None:
    text = table(MODEL, results)
    assert len(text.splitlines()) == 2 + len(results) + 1
    assert "peer crash                 ended: killed by SIGILL" in text
    assert text.endswith("in batches of 8")
    assert goals(MODEL, 0, results) == "goals\n  none for these engines"


def test_the_status_tells_only_of_ours(
    results: list[Result], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _report(results) == 0
    assert f"ended early: peer crash, {MODEL}, {DECODE_1}: killed by SIGILL" in (
        capsys.readouterr().out
    )
    assert _report([Result(MODEL, OURS, LOAD, ended="exit status 1: no")]) == 1


def test_how_a_process_ended() -> None:
    assert how(-11, "ignored") == "killed by SIGSEGV"
    assert how(1, "Traceback\nRuntimeError: why\n\n") == "exit status 1: RuntimeError: why"
