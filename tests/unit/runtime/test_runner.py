from __future__ import annotations

import asyncio
import threading

import pytest

from pythia_bento.engine.outputs import raise_error
from pythia_bento.engine.params import score_request
from pythia_bento.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    ModelNotFound,
    NonFiniteLogits,
    Overloaded,
)
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.unit.engine.gate import Gate
from tests.unit.engine.toy import toy_engine
from tests.unit.runtime.toy_runner import INFO, POISON, ask, ordered, settled, toy_runner
from tests.unit.turning import until


async def test_deltas_join_to_what_the_engine_answers_alone() -> None:
    requests = [ask((i + 1, 2), n=2, max_tokens=5 + i, temperature=0.5, seed=i) for i in range(6)]
    expected = toy_engine(64).generate(requests)
    with toy_runner() as runner:
        together = await runner.complete(requests)
        one_by_one = [await _generate(runner, request) for request in requests[:2]]
        plain = runner.complete_sync(requests)
    for answers in (together, plain):
        assert _tokens(answers) == _tokens(expected)
    assert one_by_one == [[part.token_ids for part in answer] for answer in expected[:2]]


async def test_one_call_into_the_loop_for_all_outputs_of_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    calls = 0

    def counted(*args: object, _real=loop.call_soon_threadsafe) -> object:
        nonlocal calls
        calls += 1
        return _real(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        steps = runner.stats().steps
        asked = [ask((i + 1,), max_tokens=20) for i in range(16)]
        reading = asyncio.gather(*(_generate(runner, request) for request in asked))
        await until(lambda: len(runner._thread._states) == 16)
        gate.open()
        await reading
        assert calls <= runner.stats().steps - steps < 16 * 20
        before = calls
        asked = [ask((i,), max_tokens=20 + 10 * i) for i in range(1, 4)]
        answers = await runner.complete(asked)
        assert [len(answer.token_ids) for [answer] in answers] == [30, 40, 50]
        assert calls - before < 20  # not for outputs of which nobody waits


async def test_a_reader_of_everything_is_woken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    waits: list[asyncio.Future] = []

    def counted(_real=loop.create_future) -> asyncio.Future:
        waits.append(_real())
        return waits[-1]

    gate = Gate()
    with toy_runner(gate=gate) as runner:
        stream = await runner.submit([ask((i + 1, 2), n=2, max_tokens=10) for i in range(3)])
        monkeypatch.setattr(loop, "create_future", counted)
        reading = asyncio.ensure_future(stream.all())
        loop.call_soon(gate.open)  # once it is read
        outputs = await reading
    assert len(waits) == 1
    assert sum(len(output.token_ids) for output in outputs) == 3 * 2 * 10
    assert sum(output.finish_reason is not None for output in outputs) == 6


async def test_a_reader_of_everything_gets_the_deadline_too() -> None:
    with toy_runner(gate=Gate(), request_timeout=0.12) as runner:
        outputs = await (await runner.submit([ask(max_tokens=50)])).all()
    assert outputs[-1].finish_reason == "error"
    assert isinstance(outputs[-1].error, DeadlineExceeded)


async def test_closing_the_generator_frees_the_blocks() -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        deltas = runner.generate(ask(max_tokens=60))
        gate.open(2)
        await anext(deltas)
        await gate.held()
        assert runner.stats().blocks_used > 0
        await deltas.aclose()
        await ordered(runner)
        gate.open()
        settled(runner)
        assert runner.stats().generation_tokens < 60


async def test_cancelling_the_task_frees_the_blocks() -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        task = asyncio.create_task(runner.complete([ask(max_tokens=60)]))
        gate.open(2)
        await gate.held()
        assert runner.stats().running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ordered(runner)
        gate.open()
        settled(runner)
        assert runner.stats().generation_tokens < 60


async def test_a_bad_number_ends_one_request_alone() -> None:
    with toy_runner() as runner:
        [bad], [good] = await runner.complete([ask((POISON, 1)), ask(max_tokens=3)])
        assert (bad.finish_reason, good.finish_reason) == ("error", "length")
        with pytest.raises(NonFiniteLogits):
            raise_error(bad)
        with pytest.raises(NonFiniteLogits):
            await _generate(runner, ask((POISON, 1)))


async def test_a_dead_engine_tells_everybody() -> None:
    died = threading.Event()

    def before(chunks: object) -> None:
        if engine.stats().generation_tokens > 10:
            died.set()
            raise ZeroDivisionError("broken kernel")

    engine = toy_engine(64, before=before)
    runner = PythiaRunner(engine, INFO, Settings())
    answers = await runner.complete([ask((i + 1,), max_tokens=30) for i in range(4)])
    assert died.is_set()
    assert all(isinstance(answer.error, EngineUnavailable) for [answer] in answers)
    assert "ZeroDivisionError" in answers[0][0].error.message
    assert not runner.is_ready
    with pytest.raises(EngineUnavailable, match="died"):
        await runner.submit([ask()])
    runner.close()


async def test_close_joins_the_thread_and_ends_open_requests() -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        task = asyncio.create_task(runner.complete([ask(max_tokens=60)]))
        gate.open(2)
        await gate.held()
        closing = asyncio.create_task(asyncio.to_thread(runner.close))
        await until(lambda: runner.stop_reason)
        gate.open()
        await closing
        [[answer]] = await task
        assert isinstance(answer.error, EngineUnavailable)
        assert "shutting down" in answer.error.message
        runner.close()
    assert not any(thread.name == "pythia-engine" for thread in threading.enumerate())


def test_a_loop_that_is_gone_does_not_hurt_the_engine() -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:

        async def leave() -> None:
            await runner.submit([ask(max_tokens=10)])

        asyncio.run(leave())
        gate.open()
        [[answer]] = runner.complete_sync([ask(max_tokens=3)])
        assert answer.finish_reason == "length"


async def test_scores_are_of_every_token_but_the_first() -> None:
    with toy_runner() as runner:
        prompts = [(1, 2, 3, 4, 5), (9, 8), (7,)]
        scored = await runner.score([score_request(prompt, 2) for prompt in prompts])
        assert [[lp.token_id for lp in s.prompt_logprobs or ()] for s in scored] == [
            [2, 3, 4, 5],
            [8],
            [],
        ]
        assert runner.stats().generation_tokens == 0


async def test_a_score_that_is_refused_is_refused_alone() -> None:
    with toy_runner() as runner:
        requests = [score_request(prompt) for prompt in ((1, 2), (), (3, 4), (10**6,))]
        first, empty, third, unknown = await runner.score(requests)
    assert first.error is third.error is None
    assert "prompt is empty" in str(empty.error)
    assert "prompt holds 1000000" in str(unknown.error)


async def test_scores_that_are_refused_as_a_whole_say_so_each() -> None:
    with toy_runner(max_batch_size=1, max_queue=0, gate=Gate()) as runner:
        stream = await runner.submit([ask(max_tokens=60)])
        full, empty = await runner.score([score_request((1, 2)), score_request(())])
        stream.close()
    assert isinstance(full.error, Overloaded)
    assert "prompt is empty" in str(empty.error)


async def test_model_names() -> None:
    with toy_runner() as runner:
        for name in (None, "toy", "toy@main", "toy@step3"):
            assert await runner.served(name) is runner
        with pytest.raises(ModelNotFound, match=r"'tooy'.*nearest names are toy"):
            await runner.served("tooy")


async def test_long_texts_are_encoded_elsewhere_with_the_same_result() -> None:
    with toy_runner() as runner:
        text = "in the all " * 1000
        assert await runner.encode(text) == tuple(runner.tokenizer.encode(text))
        assert await runner.encode([1, 2]) == (1, 2)


async def _generate(runner: PythiaRunner, request) -> list[list[int]]:
    tokens: list[list[int]] = [[] for _ in range(request.n)]
    async for delta in runner.generate(request):
        tokens[delta.index] += delta.token_ids
    return tokens


def _tokens(answers) -> list[list[list[int]]]:
    return [[part.token_ids for part in answer] for answer in answers]
