"""A runner over the toy engine: real scheduling, memory and threads, no arithmetic."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.params import Request, SamplingParams, new_request_id
from pythia_bento.runtime.arena import SharedMemory
from pythia_bento.runtime.loading import limits_of
from pythia_bento.runtime.model_info import ModelInfo
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.unit.engine.gate import Gate
from tests.unit.engine.toy import (
    BLOCK_SIZE,
    CONFIG,
    MAX_POSITIONS,
    POISON,
    TOKENIZER,
    Before,
    toy_engine,
)
from tests.unit.turning import until

INFO = ModelInfo("toy@step3", ("toy", "toy@main"), "toy-fingerprint", 1700000000)
PROMPT = (5, 6, 7, 8)

__all__ = ["INFO", "POISON", "PROMPT", "ask", "ordered", "settled", "toy_engine_of", "toy_runner"]


@contextlib.contextmanager
def toy_runner(
    num_blocks: int = 64, gate: Gate | None = None, **settings: Any
) -> Iterator[PythiaRunner]:
    """Closed at the end, when ``gate`` is opened, after a look at whether all blocks are back."""
    own = settings_of(**{"default_seed": 0} | settings)  # most tests compare answers
    engine = toy_engine_of(own, num_blocks, before=gate)
    with runner_with_memory(engine, own) as runner:
        try:
            yield runner
        finally:
            if gate is not None:
                gate.open()
        if runner.is_ready:
            settled(runner)
            engine.check()


@functools.cache  # which is frozen, and takes as long to make as a short test
def settings_of(**settings: Any) -> Settings:
    """For settings that the environment does not have."""
    return Settings(**settings)


def runner_with_memory(engine: Engine, settings: Settings) -> PythiaRunner:
    """A runner over an engine in this process, whose captures have a place to go."""
    memory = SharedMemory(settings.capture_bytes)
    engine.lend(memory.array)
    return PythiaRunner(engine, INFO, settings, memory=memory)


def toy_engine_of(settings: Settings, num_blocks: int = 64, before: Before | None = None) -> Engine:
    """With the limits that the settings allow, as ``load_engine`` makes engines."""
    batch, cache_tokens = settings.batch_size("cpu"), num_blocks * BLOCK_SIZE
    limits = limits_of(
        settings, TOKENIZER.num_tokens, MAX_POSITIONS, cache_tokens, batch, config=CONFIG
    )
    return toy_engine(num_blocks, before=before, limits=limits, max_batch_size=batch)


def settled(runner: PythiaRunner, seconds: float = 120.0) -> None:
    """Wait until nothing runs, waits or holds a block; on a busy machine that takes a while."""
    end = time.monotonic() + seconds
    while True:
        stats = runner.stats()
        if stats.running == stats.waiting == stats.blocks_used == 0:
            return
        assert time.monotonic() < end, stats
        time.sleep(0.005)


async def ordered(runner: PythiaRunner) -> None:
    """Wait until something is ordered of an engine that a gate holds."""
    await until(lambda: len(runner._thread._orders))


def ask(prompt: tuple[int, ...] = PROMPT, n: int = 1, **params: Any) -> Request:
    """A request with an id of its own."""
    return Request(new_request_id(), prompt, SamplingParams(**{"ignore_eos": True} | params), n)
