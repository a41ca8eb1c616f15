from __future__ import annotations

import asyncio
import os
import pickle
import queue
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import Chunk, EngineConfig, Results
from pythia_bento.engine.grammars import Constraint
from pythia_bento.errors import (
    CheckpointError,
    EngineUnavailable,
    InvalidRequest,
    NonFiniteLogits,
)
from pythia_bento.runtime import process, process_main
from pythia_bento.runtime.model_info import ModelInfo, Progress
from pythia_bento.runtime.process import EngineProcess
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.constraints import CASES
from tests.forkserver import CONTEXT
from tests.unit.engine.gate import FarGate
from tests.unit.engine.toy import TOKENIZER, ToyExecutor, ToyModel, toy_engine
from tests.unit.runtime.toy_runner import INFO, POISON, ask, settled, toy_engine_of
from tests.unit.turning import until

PARTS = ("queue", "prefill", "decode")
GUIDED = [*CASES.values()]

# Named functions of a module: the process imports them.


def load_toy(settings: Settings, on_progress: Progress) -> tuple[Engine, ModelInfo]:
    for done in (1, 2):
        on_progress("loading toy", done, 2)
    return toy_engine_of(settings), INFO


def load_held(gate: FarGate, settings: Settings, on_progress: Progress) -> tuple[Engine, ModelInfo]:
    return toy_engine(64, before=gate), INFO


def load_stuck(settings: Settings, on_progress: Progress) -> tuple[Engine, ModelInfo]:
    class Stuck(ToyExecutor):
        def execute(self, chunks: Sequence[Chunk], *, others_wait: bool = False) -> Results:
            time.sleep(0.01)
            return [None for _ in chunks]

    return Engine(Stuck(ToyModel(), EngineConfig(64)), TOKENIZER), INFO


def load_nothing(settings: Settings, on_progress: Progress) -> tuple[Engine, ModelInfo]:
    raise CheckpointError("the checkpoint has no weights", param="model")


def load_and_die(settings: Settings, on_progress: Progress) -> tuple[Engine, ModelInfo]:
    os._exit(3)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine processes start at once; where dying is shown they are spawned, as they are in use."""
    monkeypatch.setattr(process.multiprocessing, "get_context", lambda _: CONTEXT)


@pytest.fixture
def gate(tmp_path: Path) -> FarGate:
    return FarGate(tmp_path)


def runner_over(
    load: Callable[..., Any] = load_toy, on_progress: Progress = lambda *_: None, **settings: Any
) -> PythiaRunner:
    process = EngineProcess(Settings(**settings), on_progress, load)
    return PythiaRunner(process, process.info, Settings(**settings))


@pytest.mark.usefixtures("forked")
async def test_answers_are_those_of_an_engine_in_this_process() -> None:
    requests = [ask((i + 1, 2), n=2, max_tokens=5 + i, temperature=0.5, seed=i) for i in range(6)]
    expected = toy_engine(64).generate(requests)
    seen: list[tuple[str, int, int]] = []
    with runner_over(on_progress=lambda *progress: seen.append(progress)) as runner:
        together = await runner.complete(requests)
        assert runner.info == INFO
        settled(runner)
        stats = runner.stats()
        watch = runner.watch
    assert together == expected
    assert seen == [("loading toy", 1, 2), ("loading toy", 2, 2)]
    assert stats.generation_tokens == sum(2 * (5 + i) for i in range(6))
    assert stats.blocks_total == 64
    assert sum(stats.batch_sizes) == stats.steps > 0
    assert watch.ended["length"] == 12
    counts = {name: sum(found.counts) for name, found in watch.histograms.items()}
    assert counts.pop("inter_token_latency_seconds") == stats.generation_tokens - 12
    assert set(counts.values()) == {6}
    parts = [watch.histograms[f"request_{part}_time_seconds"] for part in PARTS]
    total = watch.histograms["e2e_request_latency_seconds"].sum
    assert all(part.sum > 0 for part in parts)  # the clock is one for both processes
    assert sum(part.sum for part in parts) == pytest.approx(total)


@pytest.mark.usefixtures("forked")
async def test_leaving_frees_the_blocks(gate: FarGate) -> None:
    with runner_over(partial(load_held, gate)) as runner:
        deltas = runner.generate(ask(max_tokens=60))
        gate.open(2)
        await anext(deltas)
        await gate.held()
        await deltas.aclose()
        await until(lambda: runner.watch.ended["abort"])
        while runner.stats().running:  # the process reads of it beside its steps
            gate.open(1)
            await asyncio.sleep(0.05)
        settled(runner)
        assert runner.stats().generation_tokens < 60


@pytest.mark.usefixtures("forked")
async def test_outputs_cross_with_all_that_they_have() -> None:
    asked = ask((5, 6, 7), max_tokens=3, logprobs=2, prompt_logprobs=1, stop=("zz",))
    with runner_over() as runner:
        [[found]] = await runner.complete([asked])
    [[expected]] = toy_engine(64).generate([asked])
    assert found == expected
    assert found.logprobs and found.prompt_logprobs and found.started


@pytest.mark.usefixtures("forked")
def test_an_order_is_not_left_waiting_for_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a step that never ends by itself, only the interruption lets an abort through."""
    monkeypatch.setattr(process, "POLL_SECONDS", 600.0)
    with runner_over(load_stuck) as runner:
        stream = runner.submit_sync([ask(max_tokens=60)])
        stream.close()
        end = time.monotonic() + 60
        while not runner.watch.ended["abort"]:
            assert time.monotonic() < end
            time.sleep(0.005)


@pytest.mark.usefixtures("forked")
async def test_errors_come_back_whole() -> None:
    with runner_over() as runner:
        [bad], [good] = await runner.complete([ask((POISON, 1)), ask(max_tokens=3)])
        assert isinstance(bad.error, NonFiniteLogits)
        assert good.finish_reason == "length"


@pytest.mark.usefixtures("forked")
async def test_limits_of_the_settings_hold_in_the_process() -> None:
    with runner_over(max_n=200, max_queue=4096) as runner:
        [answers] = await runner.complete([ask(n=150, max_tokens=1)])
    assert [answer.finish_reason for answer in answers] == ["length"] * 150


@pytest.mark.usefixtures("forked")
def test_what_loading_raises_is_raised_here() -> None:
    with pytest.raises(CheckpointError, match="has no weights") as caught:
        runner_over(load_nothing)
    assert caught.value.param == "model"
    with pytest.raises(EngineUnavailable, match="ended with 3"):
        runner_over(load_and_die)


async def test_a_process_that_dies_tells_everybody(gate: FarGate) -> None:
    with runner_over(partial(load_held, gate)) as runner:
        engine = runner._thread._engine
        assert isinstance(engine, EngineProcess)
        assert runner.is_ready
        deltas = runner.generate(ask(max_tokens=60))
        gate.open(1)
        await anext(deltas)
        assert engine._process.pid is not None
        os.kill(engine._process.pid, signal.SIGKILL)
        with pytest.raises(EngineUnavailable, match="process ended with -9"):
            async for _ in deltas:
                pass
        assert not runner.is_ready
        with pytest.raises(EngineUnavailable):
            await runner.submit([ask()])


@pytest.mark.usefixtures("forked")
def test_an_idle_process_that_dies_is_noticed() -> None:
    with runner_over() as runner:
        engine = runner._thread._engine
        assert isinstance(engine, EngineProcess)
        engine._process.kill()
        engine._process.join()
        assert not runner.is_ready


@pytest.mark.usefixtures("forked")
async def test_closing_ends_the_process_and_what_is_open(gate: FarGate) -> None:
    runner = runner_over(partial(load_held, gate))
    engine = runner._thread._engine
    stream = await runner.submit([ask(max_tokens=60)])
    await gate.held()
    closing = asyncio.create_task(asyncio.to_thread(runner.close))
    await until(lambda: runner.stop_reason)
    gate.open()
    await closing
    outputs = await stream.all()
    assert isinstance(outputs[-1].error, EngineUnavailable)
    assert not engine.is_alive


@pytest.mark.usefixtures("forked")
async def test_what_a_text_must_be_is_compiled_before_the_engine_sees_it() -> None:
    asked = [ask((5, i), max_tokens=50, constraint=c.constraint) for i, c in enumerate(GUIDED)]
    unknown = ask(constraint=Constraint("guided_regex", "regex", "("))
    with runner_over() as runner:
        together = await runner.complete([*asked, unknown])
    assert together[:-1] == toy_engine(64).generate(asked)
    for case, [answer] in zip(GUIDED, together, strict=False):
        assert answer.finish_reason == "length" or case.conforms(answer.text)
    assert isinstance(together[-1][0].error, InvalidRequest)


def test_the_reader_compiles_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = CONTEXT.Pipe()
    prepared, orders = [], queue.SimpleQueue()
    engine = SimpleNamespace(prepare=prepared.append)
    plain, guided = ask(), ask(constraint=GUIDED[0].constraint)
    for order in (plain, guided, "an id"):
        ours.send_bytes(pickle.dumps(order))
    ours.close()
    process_main._read(theirs, orders, engine)
    assert [orders.get() for _ in range(4)] == [plain, guided, "an id", None]
    assert prepared == [guided.params.constraint]
