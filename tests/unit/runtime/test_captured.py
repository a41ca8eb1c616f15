"""``Served.capture``: rows in the arena, until they are read and nobody writes to them."""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pythia_bento.engine.capture import Capture, Tap, layout
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.interventions import Intervention, interventions
from pythia_bento.engine.params import Request
from pythia_bento.errors import (
    EngineUnavailable,
    InvalidRequest,
    NonFiniteLogits,
    PayloadTooLarge,
)
from pythia_bento.model.sites import EMBED, RESID_POST, Place
from pythia_bento.runtime import process
from pythia_bento.runtime.arena import Arena, SharedMemory
from pythia_bento.runtime.captured import Captured
from pythia_bento.runtime.model_info import ModelInfo, Progress
from pythia_bento.runtime.process import EngineProcess
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.served import Served
from pythia_bento.settings import Settings
from tests.forkserver import CONTEXT
from tests.unit.engine.gate import FarGate, Gate
from tests.unit.engine.toy import toy_engine
from tests.unit.runtime.test_arena import resident
from tests.unit.runtime.toy_runner import (
    INFO,
    POISON,
    ask,
    runner_with_memory,
    toy_engine_of,
    toy_runner,
)
from tests.unit.turning import until

SHOWN = Capture((Tap(Place(EMBED), range(2**31)), Tap(Place(RESID_POST), range(1, 2**31))))


def shown(*prompt: int, **params: Any) -> Request:
    return replace(ask(prompt, **params), capture=SHOWN)


def rows(served: Served, request: Request, memory: memoryview) -> list[np.ndarray]:
    groups, nbytes = layout(SHOWN, served.config, request.most_inputs)
    assert nbytes <= len(memory)
    return [np.frombuffer(memory, "f4", p.rows, p.offset).copy() for [p] in groups]


def arena_of(runner: PythiaRunner) -> Arena:
    assert runner.arena is not None
    return runner.arena


async def is_free(runner: PythiaRunner) -> None:
    arena = arena_of(runner)
    await until(lambda: arena.used == 0)
    assert resident(arena.memory) == 0


async def test_each_request_has_its_rows_beside_others_without(runner: PythiaRunner) -> None:
    requests = [shown(5, 6, max_tokens=3), ask(max_tokens=4), shown(7, 8, 9, max_tokens=1)]
    with await runner.capture(requests) as found:
        assert len(found.memory[1]) == 0
        first, third = (rows(runner, requests[n], found.memory[n]) for n in (0, 2))
        tokens = found.outputs[0][0].token_ids
        assert first[0].tolist() == [5, 6, *tokens[:2]] and third[0].tolist() == [7, 8, 9]
        assert len(first[1]) == 3 and len(third[1]) == 2
        assert arena_of(runner).used > 0
    plain = [replace(request, capture=None) for request in requests]
    assert found.outputs == await runner.complete(plain)
    found.close()
    await is_free(runner)


async def test_what_is_wrong_takes_no_memory(runner: PythiaRunner) -> None:
    many = replace(shown(5, 6), n=2)
    far = replace(ask(), capture=Capture((Tap(Place(RESID_POST, 1), (0,)),)))
    for bad, words in (
        (many, "n must be 1 with a capture"),
        (far, "the model's layers are 0 to 0"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            await runner.capture([bad])
    with await runner.capture([shown(POISON, 1, max_tokens=2), shown(5, 6)]) as found:
        [[failed], [good]] = found.outputs
        assert isinstance(failed.error, NonFiniteLogits) and good.error is None
    await is_free(runner)


async def test_nothing_is_captured_without_a_place(runner: PythiaRunner) -> None:
    with pytest.raises(ValueError, match=r"asked for by Served\.capture"):
        await runner.complete([shown(5, 6)])


async def test_more_than_there_is_can_never_be() -> None:
    settings = {"capture_gb": 1e-5, "max_capture_bytes": 10_000}
    many = [shown(5, 6, max_tokens=50) for _ in range(100)]
    with (
        toy_runner(**settings) as runner,
        pytest.raises(PayloadTooLarge, match="PYTHIA_CAPTURE_GB"),
    ):
        await runner.capture(many)


async def test_without_memory_nothing_is_captured() -> None:
    words, limits = "does not show the inside", replace(toy_engine().limits, config=None)
    with (
        PythiaRunner(toy_engine_of(Settings()), INFO, Settings()) as runner,
        pytest.raises(InvalidRequest, match=words),
    ):
        await runner.capture([shown(5, 6)])
    change = interventions([Intervention(Place(EMBED), "zero", (0,))])
    with (
        PythiaRunner(toy_engine(limits=limits), INFO, Settings()) as runner,
        pytest.raises(InvalidRequest, match=words),
    ):
        await runner.complete([replace(ask(), interventions=change)])


async def test_memory_is_not_free_while_the_engine_may_still_write() -> None:
    gate = Gate()
    engine = toy_engine_of(Settings(), before=gate)
    with runner_with_memory(engine, Settings()) as runner:
        task = asyncio.create_task(runner.capture([shown(5, 6, max_tokens=9)]))
        await gate.held()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        arena = arena_of(runner)
        assert arena.used > 0  # in the step: only the engine's thread can end the request
        gate.open()
        await is_free(runner)


async def test_an_engine_that_is_given_up_keeps_what_it_may_write_to() -> None:
    gate = Gate()
    engine = toy_engine_of(Settings(), before=gate)
    runner = runner_with_memory(engine, Settings())
    task = asyncio.create_task(runner.capture([shown(5, 6, max_tokens=9)]))
    await gate.held()
    runner._thread.abandon(EngineUnavailable("the engine hangs"))
    with await task as found:
        assert isinstance(found.outputs[0][0].error, EngineUnavailable)
    arena = arena_of(runner)
    assert arena.used > 0
    gate.open()
    await until(lambda: arena.used == 0)
    runner.close()


async def test_a_hundred_captures_and_aborts_leave_nothing(runner: PythiaRunner) -> None:
    (await runner.capture([shown(5, 6)])).close()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        task = asyncio.create_task(runner.capture([shown(5, number, max_tokens=30)] * 1))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        if number % 2:
            task.cancel()
        done: list[Captured | BaseException] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(done[0], Captured):
            done[0].close()
    await is_free(runner)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


# What follows is in a process of its own, which imports these by name.


def load_toy(settings: Settings, on_progress: Progress) -> tuple[Engine, ModelInfo]:
    return toy_engine_of(settings), INFO


def load_held(gate: FarGate, settings: Settings, on_progress: Progress) -> tuple[Engine, ModelInfo]:
    return toy_engine_of(settings, before=gate), INFO


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.multiprocessing, "get_context", lambda _: CONTEXT)


def runner_over(load: Any = load_toy, **settings: Any) -> PythiaRunner:
    chosen = Settings(**settings)
    memory = SharedMemory(chosen.capture_bytes)
    engine = EngineProcess(chosen, lambda *_: None, load, memory)
    return PythiaRunner(engine, engine.info, chosen, memory=memory)


@pytest.mark.usefixtures("forked")
async def test_a_process_shows_the_same() -> None:
    change = interventions([Intervention(Place(EMBED), "scale", (1, 4), scale=2.0)])
    requests = [
        replace(shown(5, 6 + n, max_tokens=n, seed=n), interventions=change if n % 2 else None)
        for n in range(1, 6)
    ]
    with runner_over() as far, toy_runner() as near:
        assert far.config == near.config
        with await far.capture(requests) as found, await near.capture(requests) as expected:
            assert found.outputs == expected.outputs
            for request, one, other in zip(requests, found.memory, expected.memory, strict=True):
                for ours, theirs in zip(
                    rows(far, request, one), rows(near, request, other), strict=True
                ):
                    assert np.array_equal(ours, theirs)
        await is_free(far)


@pytest.mark.usefixtures("forked")
async def test_a_process_says_when_it_writes_no_more(tmp_path: Path) -> None:
    gate = FarGate(tmp_path)
    with runner_over(partial(load_held, gate)) as runner:
        task = asyncio.create_task(runner.capture([shown(5, 6, max_tokens=9)]))
        await gate.held()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        arena = arena_of(runner)
        await until(lambda: runner.watch.ended["abort"] == 1)  # as far as this process goes
        assert arena.used > 0
        gate.open()
        await is_free(runner)


@pytest.mark.usefixtures("forked")
async def test_a_process_that_dies_writes_no_more(tmp_path: Path) -> None:
    gate = FarGate(tmp_path)
    with runner_over(partial(load_held, gate)) as runner:
        task = asyncio.create_task(runner.capture([shown(5, 6, max_tokens=9)]))
        await gate.held()
        engine = runner._thread._engine
        assert isinstance(engine, EngineProcess)
        engine._process.kill()
        with await task as found:
            assert isinstance(found.outputs[0][0].error, EngineUnavailable)
        arena = arena_of(runner)
        await until(lambda: arena.used == 0)
