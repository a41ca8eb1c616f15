"""Many checkpoints over several engines, each with room for the default and another one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.runtime import process
from pythia_bento.runtime.runner import PythiaRunner
from tests.forkserver import CONTEXT
from tests.unit.runtime.pool.toy_pool import counts, engine, load_group, pid, toy_pool, where
from tests.unit.runtime.toy_runner import ask
from tests.unit.runtime.toy_shelf import ToyShelf, toy_step
from tests.unit.turning import until


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[PythiaRunner]:
    monkeypatch.setattr(process.multiprocessing, "get_context", lambda _: CONTEXT)
    load = partial(load_group, 2)
    with toy_pool(load, load, shelf=ToyShelf()) as runner:
        yield runner


async def answer(runner: PythiaRunner, step: int) -> SequenceOutput:
    served = await runner.served(f"toy@step{step}")
    [[found]] = await served.complete([ask(max_tokens=6)])
    return replace(found, request_id="")


def alone(step: int) -> SequenceOutput:
    with toy_step(step) as runner:
        [[found]] = runner.complete_sync([ask(max_tokens=6)])
    return replace(found, request_id="")


def on_device(runner: PythiaRunner) -> list[set[str]]:
    return [{key for key, state in one.items() if state == "device"} for one in where(runner)]


async def test_they_are_spread_where_there_is_room(runner: PythiaRunner) -> None:
    for _ in range(3):
        for step in (3, 1, 2):
            found = await answer(runner, step)
            assert replace(found, num_cached_tokens=0) == alone(step)
    await until(lambda: on_device(runner) == [{"w3", "w1"}, {"w3", "w2"}])
    assert runner.stats().group.evictions == 0
    assert runner.models.places == 2
    where = runner._thread.residencies
    assert {where[key].state for key in ("w1", "w2", "w3")} == {"device"}


async def test_pinned_ones_are_everywhere(runner: PythiaRunner) -> None:
    runner.models._pins._places = 3  # as one place has to be left for others
    await runner.models.load("toy@step5", is_pinned=True)
    await everywhere(runner, "w5")
    os.kill(pid(engine(runner, 0)), signal.SIGKILL)
    await until(lambda: counts(runner, "restarts") == [1, 0])
    await everywhere(runner, "w5")


async def everywhere(runner: PythiaRunner, key: str) -> None:
    """What an engine says is read while somebody asks."""
    while not all(key in one for one in on_device(runner)):
        await answer(runner, 3)
