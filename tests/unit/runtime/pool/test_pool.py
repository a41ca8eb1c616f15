from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from pythia_bento.engine.outputs import SequenceOutput, collect
from pythia_bento.engine.params import Request
from pythia_bento.errors import CheckpointError, EngineUnavailable
from pythia_bento.runtime import process
from pythia_bento.runtime.devices import Device
from pythia_bento.runtime.pool import place
from pythia_bento.runtime.pool.asked import MOST_TRIES
from pythia_bento.runtime.pool.pool import EnginePool
from pythia_bento.runtime.process import EngineProcess
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings, SettingsError
from tests.forkserver import CONTEXT
from tests.unit.engine.toy import toy_engine
from tests.unit.runtime.pool.toy_pool import (
    counts,
    engine,
    engines,
    gates,
    held,
    load_hanging,
    load_toy,
    pid,
    toy_pool,
)
from tests.unit.runtime.toy_runner import ask, settled
from tests.unit.turning import until


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.multiprocessing, "get_context", lambda _: CONTEXT)


def questions(count: int, tokens: int = 8) -> list[Request]:
    return [
        ask((i + 1, 2), n=2, max_tokens=tokens, temperature=0.5, seed=i, logprobs=1)
        for i in range(count)
    ]


async def read(
    runner: PythiaRunner, requests: list[Request]
) -> tuple[list[SequenceOutput], asyncio.Task[list[SequenceOutput]]]:
    """What has come so far, and what reads the rest."""
    stream = await runner.submit(requests)
    found: list[SequenceOutput] = []

    async def rest() -> list[SequenceOutput]:
        async for outputs in stream:
            found.extend(outputs)
        return found

    task = asyncio.create_task(rest())
    return found, task


async def both_have_begun(runner: PythiaRunner) -> None:
    await until(lambda: all(one and one._num_outputs for one in engines(runner)))


async def test_answers_are_those_of_one_engine() -> None:
    requests = questions(12)
    expected = toy_engine(64).generate(requests)
    with toy_pool(load_toy, load_toy) as runner:
        assert await runner.complete(requests) == expected
        settled(runner)
        stats = runner.stats()
        tokens = [state.stats.generation_tokens for state in runner.replicas]
        assert [state.device for state in runner.replicas] == ["cpu:0", "cpu:1"]
    assert min(tokens) > 0
    assert stats.generation_tokens == 192
    assert stats.blocks_total == 128
    assert runner.watch.ended["length"] == 24


async def test_who_reads_does_not_notice_that_an_engine_ends(tmp_path: Path) -> None:
    requests = questions(4, tokens=30)
    expected = toy_engine(64).generate(requests)
    shut = gates(tmp_path)
    with toy_pool(*held(shut)) as runner:
        for gate in shut:
            gate.open(3)
        found, rest = await read(runner, requests)
        await both_have_begun(runner)
        os.kill(pid(engine(runner, 0)), signal.SIGKILL)
        await until(lambda: runner.repeats == 2)
        assert not any(output.finish_reason for output in found)
        for gate in shut:
            gate.open()
        assert collect(requests, await rest) == expected
        await until(lambda: counts(runner, "restarts") == [1, 0])
        more = questions(4, tokens=30)
        assert await runner.complete(more) == toy_engine(64).generate(more)
        assert counts(runner, "died") == [1, 0]
        assert counts(runner, "hung") == [0, 0]
        settled(runner)
        assert runner.stats().generation_tokens >= 2 * 240


async def test_one_that_hangs_is_replaced(tmp_path: Path) -> None:
    requests = questions(4, tokens=30)
    shut = gates(tmp_path)
    with toy_pool(*held(shut), stall_seconds=1) as runner:
        for gate in shut:
            gate.open(3)
        _, rest = await read(runner, requests)
        await both_have_begun(runner)
        stopped = engine(runner, 1)
        os.kill(pid(stopped), signal.SIGSTOP)
        for gate in shut:
            gate.open()
        runner.start_watchdog()
        assert collect(requests, await rest) == toy_engine(64).generate(requests)
        await until(lambda: all(engines(runner)))
        assert counts(runner, "hung")[1] == 1
        assert engine(runner, 1) is not stopped
        assert not runner.is_stuck


async def test_one_that_hangs_keeps_nobody_waiting() -> None:
    """Not even for room in the pipe to it."""
    bias = tuple((id, 0.5) for id in range(100))
    many = [ask((1 + i % 90, 2), max_tokens=2, logit_bias=bias) for i in range(400)]
    with toy_pool(load_toy, load_toy) as runner:
        os.kill(pid(engine(runner, 0)), signal.SIGSTOP)
        _, rest = await read(runner, many)
        await until(lambda: engine(runner, 0).process.wire.events & select.POLLOUT)
        await until(lambda: not engine(runner, 1).open)
        os.kill(pid(engine(runner, 0)), signal.SIGCONT)
        assert sum(output.finish_reason == "length" for output in await rest) == len(many)


async def test_when_no_engine_is_left_they_are_told_when_to_come_again() -> None:
    may_start = threading.Event()
    may_start.set()
    with toy_pool(load_toy, starts=lambda: may_start.wait(60)) as runner:
        may_start.clear()
        os.kill(pid(engine(runner, 0)), signal.SIGKILL)
        await until(lambda: not runner.is_ready)
        assert runner.stop_reason is None  # another process of ours would not help
        [[answer]] = await runner.complete([ask()])
        assert isinstance(answer.error, EngineUnavailable)
        assert answer.error.retry_after
        may_start.set()
        await until(lambda: runner.is_ready)
        assert (await runner.complete([ask()]))[0][0].error is None


async def test_one_that_cannot_be_started_any_more() -> None:
    failures: list[Exception] = []

    def starts() -> None:
        if failures:
            raise failures[0]

    with toy_pool(load_toy, starts=starts) as runner:
        failures.append(CheckpointError("the disk is gone"))
        os.kill(pid(engine(runner, 0)), signal.SIGKILL)
        await until(lambda: runner.stop_reason)
        failures.clear()
        await until(lambda: runner.stop_reason is None)


async def test_one_that_hangs_while_it_starts_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "SILENT_SECONDS", 0)
    with toy_pool(partial(load_hanging, tmp_path)) as runner:
        (tmp_path / "hang").touch()
        os.kill(pid(engine(runner, 0)), signal.SIGKILL)
        await until(lambda: runner.stop_reason)
        hung = {int(file.name) for file in tmp_path.iterdir() if file.name != "hang"}
        (tmp_path / "hang").unlink()
        await until(lambda: runner.is_ready)
        assert (await runner.complete([ask()]))[0][0].error is None
        assert pid(engine(runner, 0)) not in hung
    assert hung
    assert not any(psutil.pid_exists(one) for one in hung)


async def test_the_service_ends_while_one_hangs_in_its_start(tmp_path: Path) -> None:
    with toy_pool(load_toy, partial(load_hanging, tmp_path)) as runner:
        (tmp_path / "hang").touch()
        os.kill(pid(engine(runner, 1)), signal.SIGKILL)
        await until(lambda: len([*tmp_path.iterdir()]) == 2)
    [hung] = [int(file.name) for file in tmp_path.iterdir() if file.name != "hang"]
    await until(lambda: not psutil.pid_exists(hung))


async def test_what_ends_while_the_service_ends_stays_down(tmp_path: Path) -> None:
    requests = questions(4)
    shut = gates(tmp_path)
    with toy_pool(*held(shut)) as runner:
        _, rest = await read(runner, requests)
        runner.stay_down()
        os.kill(pid(engine(runner, 0)), signal.SIGKILL)
        await until(lambda: counts(runner, "died") == [1, 0])
        shut[1].open()
        assert collect(requests, await rest) == toy_engine(64).generate(requests)
        assert runner.is_ready
        assert engines(runner)[0] is None


async def test_what_engines_die_of_is_not_asked_for_ever(tmp_path: Path) -> None:
    shut = gates(tmp_path, 1)
    with toy_pool(*held(shut) * (MOST_TRIES + 1)) as runner:
        _, rest = await read(runner, [ask()])
        for _ in range(MOST_TRIES):
            await until(lambda: any(one and one.open for one in engines(runner)))
            [has_it] = [one for one in engines(runner) if one and one.open]
            os.kill(pid(has_it), signal.SIGKILL)
            await until(lambda: not has_it.open or has_it.stopped.done())  # noqa: B023
        [answer] = await rest
        assert isinstance(answer.error, EngineUnavailable)
        assert "ended with -9" in answer.error.message
        assert answer.error.retry_after
        shut[0].open()


def test_what_starting_raises_is_raised_and_nothing_is_left() -> None:
    started: list[EngineProcess] = []

    def start(device: Device, *_: object) -> EngineProcess:
        if device.number:
            raise CheckpointError("the checkpoint has no weights")
        started.append(EngineProcess(Settings(), lambda *_: None, load_toy))
        return started[0]

    with pytest.raises(CheckpointError, match="has no weights"):
        EnginePool([Device("cpu", i, i, 2) for i in range(2)], start, lambda *_: None)
    assert not started[0].is_alive


def test_devices_are_of_one_kind() -> None:
    kinds: Iterator[str] = iter(["cpu", "NVIDIA H200"])
    lock = threading.Lock()

    def start(device: Device, *_: object) -> EngineProcess:
        found = EngineProcess(Settings(), lambda *_: None, load_toy)
        with lock:
            found.device_name = next(kinds)
        return found

    with pytest.raises(SettingsError, match=r"PYTHIA_DEVICES.*NVIDIA H200, cpu"):
        EnginePool([Device("cpu", i, i, 2) for i in range(2)], start, lambda *_: None)
