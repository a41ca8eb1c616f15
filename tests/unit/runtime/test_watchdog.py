from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from pythia_bento.errors import EngineUnavailable
from pythia_bento.runtime import process
from pythia_bento.runtime.backend import MOST_ORDERS
from pythia_bento.runtime.process import EngineProcess
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.thread import EngineThread
from pythia_bento.runtime.watchdog import LOOKS, Watchdog
from pythia_bento.settings import Settings
from tests.forkserver import CONTEXT
from tests.unit.engine.gate import FarGate, Gate
from tests.unit.engine.toy import toy_engine
from tests.unit.runtime.test_process import load_held
from tests.unit.runtime.toy_runner import INFO, ask, settled, toy_runner

SOON = Settings(stall_seconds=0.2)


def looks(thread: EngineThread, count: int = LOOKS + 1) -> bool:
    """Whether a new watchdog sees a hang within so many looks."""
    watchdog = Watchdog(thread, 1)
    return any(watchdog.sees_hang() for _ in range(count))


def test_idle_engines_do_not_hang() -> None:
    with toy_runner() as runner:
        assert not looks(runner._thread, 10 * LOOKS)
        runner.complete_sync([ask()])
        settled(runner)
        assert not looks(runner._thread, 10 * LOOKS)


def test_looks_that_see_a_step_begin_anew() -> None:
    gate = Gate()
    engine = toy_engine(64, before=gate)
    with PythiaRunner(engine, INFO, Settings()) as runner:
        stream = runner.submit_sync([ask(max_tokens=3), ask((9, 9), max_tokens=3)])
        gate.wait()
        watchdog = Watchdog(runner._thread, 1)
        assert not any(watchdog.sees_hang() for _ in range(LOOKS))
        gate.open()
        outputs = [output for outputs in stream for output in outputs]
        assert not watchdog.sees_hang()  # the last one would have been one too many
        assert all(output.error is None for output in outputs)


async def test_an_engine_that_hangs_is_abandoned(capfd: pytest.CaptureFixture[str]) -> None:
    gate = Gate()
    engine = toy_engine(64, before=gate)
    runner = PythiaRunner(engine, INFO, SOON)
    asking = asyncio.create_task(runner.complete([ask(n=2), ask((1, 2))]))
    await gate.held()
    runner.start_watchdog()
    answers = await asking
    errors = [answer.error for group in answers for answer in group]
    assert [str(error) for error in errors] == [
        "the engine hangs: it made no step in 0.2 seconds"
    ] * 3
    assert (runner.is_ready, runner.is_stuck, runner.stop_reason) == (False, True, errors[0])
    runner.stopped.result(60)
    with pytest.raises(EngineUnavailable, match="no step"):
        await runner.submit([ask()])
    runner.close()  # does not wait for what does not come
    assert runner.is_stuck
    gate.open()  # it comes back after all: nobody is left, and the thread ends
    runner._thread._thread.join(60)
    assert not runner._thread._thread.is_alive()
    assert not runner.is_stuck
    _joined("pythia-watchdog")
    assert "gate.py" in capfd.readouterr().err  # where it was


def test_requests_that_are_taken_out_are_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    engine = toy_engine(64, before=gate, max_batch_size=1)
    with PythiaRunner(engine, INFO, Settings()) as runner:
        stream = runner.submit_sync([ask((i % 90,)) for i in range(2 * MOST_ORDERS)])
        gate.wait()
        seen, abort = [], engine.abort

        def watched(request_id: str) -> object:
            seen.append((runner._thread.pulse(), engine.stats().steps))
            return abort(request_id)

        monkeypatch.setattr(engine, "abort", watched)
        stream.close()
        gate.open()
        settled(runner)
    assert len({pulse for pulse, _ in seen}) == 2 * MOST_ORDERS  # each differs from those before


def test_requests_come_and_go_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: the others go on meanwhile."""
    gate = Gate()
    engine = toy_engine(64, before=gate)
    with PythiaRunner(engine, INFO, Settings()) as runner:
        kept = runner.submit_sync([ask((1,), max_tokens=60)])
        stream = runner.submit_sync([ask((i % 90,)) for i in range(3 * MOST_ORDERS)])
        gate.wait()
        seen, abort = [], engine.abort

        def watched(request_id: str) -> object:
            seen.append(engine.stats().steps)
            return abort(request_id)

        monkeypatch.setattr(engine, "abort", watched)
        stream.close()
        gate.open()
        assert [output.finish_reason for outputs in kept for output in outputs][-1] == "length"
        settled(runner)
    assert max(Counter(seen).values()) <= MOST_ORDERS and len(set(seen)) >= 3


def test_zero_is_never() -> None:
    with PythiaRunner(toy_engine(64), INFO, Settings(stall_seconds=0)) as runner:
        runner.start_watchdog()
        assert "pythia-watchdog" not in {thread.name for thread in threading.enumerate()}


async def test_a_process_that_hangs_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(process.multiprocessing, "get_context", lambda _: CONTEXT)
    gate = FarGate(tmp_path)
    engine = EngineProcess(SOON, lambda *_: None, partial(load_held, gate))
    runner = PythiaRunner(engine, engine.info, SOON)
    gate.open(1)
    [[first]] = await runner.complete([ask(max_tokens=1)])
    assert first.error is None
    asking = asyncio.create_task(runner.complete([ask()]))
    await gate.held()
    runner.start_watchdog()
    [[answer]] = await asking
    assert "no step in 0.2 seconds" in str(answer.error)
    runner.close()
    assert not runner.is_stuck
    assert engine._process.exitcode == -9
    _joined("pythia-watchdog")


@pytest.mark.parametrize("broken", [OSError(28, "full"), ValueError("closed")])
async def test_stacks_that_cannot_be_written(
    broken: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    engine = toy_engine(64, before=gate)
    monkeypatch.setattr(sys, "stderr", _Broken(broken))
    with PythiaRunner(engine, INFO, SOON) as runner:
        asking = asyncio.create_task(runner.complete([ask()]))
        await gate.held()
        runner.start_watchdog()
        [[answer]] = await asking
        assert isinstance(answer.error, EngineUnavailable)
        _joined("pythia-watchdog")
        gate.open()


class _Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def fileno(self) -> int:
        raise self._error


def _joined(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(60)
            assert not thread.is_alive()
