"""What a runner takes, how long it works on it, and whose turn it is."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from pythia_bento.engine.params import Request, score_request
from pythia_bento.engine.scheduler import MOST_LATE
from pythia_bento.engine.validate import Limits, validate
from pythia_bento.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
)
from pythia_bento.runtime import served as served_module
from pythia_bento.runtime import turns
from pythia_bento.runtime.admission import Intake
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.telemetry.calls import CallContext, working_for
from tests.unit.engine.gate import Gate
from tests.unit.engine.toy import toy_engine
from tests.unit.runtime.toy_runner import ask, settled, toy_runner
from tests.unit.turning import until


async def test_the_queue_is_bounded_and_one_request_leaves_room_for_others() -> None:
    gate = Gate()
    with toy_runner(gate=gate, max_batch_size=2, max_queue=2) as runner:
        first = await runner.submit(
            [ask((i + 1,), max_tokens=8) for i in range(6)]
        )  # counts as two
        second = await runner.submit([ask((i + 1,), max_tokens=8) for i in range(2)])
        with pytest.raises(Overloaded, match=r"4 sequences.*1 more.*limit of 4"):
            await runner.submit([ask()])
        gate.open()
        for stream in (first, second):
            async for _ in stream:
                pass
        stream = await runner.submit([ask(max_tokens=2), ask((9,), max_tokens=2)])
        assert await _reasons(stream) == ["length", "length"]


async def test_deadline() -> None:
    """Whoever comes first says so: the stream, or the engine where it still has to begin."""
    with toy_runner(gate=Gate(), request_timeout=0.12) as runner:
        [[answer]] = await runner.complete([ask(max_tokens=50)])
        assert isinstance(answer.error, DeadlineExceeded)
        [[answer]] = runner.complete_sync([ask(max_tokens=50)])
        assert isinstance(answer.error, DeadlineExceeded)


async def test_requests_are_refused_before_they_are_queued() -> None:
    with toy_runner(num_blocks=4, max_n=3, max_logprobs=2) as runner:
        assert isinstance(runner.limits, Limits)
        for request, kind in (
            (ask(()), InvalidRequest),
            (ask(n=4), InvalidRequest),
            (ask(logprobs=3), InvalidRequest),
            (ask((1,) * 65), ContextLengthExceeded),
        ):
            with pytest.raises(kind):
                await runner.submit([ask(), request])
        assert runner.stats().prompt_tokens == 0


@pytest.mark.parametrize(
    ("setting", "request_", "words"),
    [
        ("max_n", ask(n=3), "n must be an integer between 1 and 2, not 3"),
        ("max_logprobs", ask(logprobs=3), "logprobs must be an integer between 0 and 2, not 3"),
        ("max_stop", ask(stop=("a", "b", "c")), "stop has 3 strings, but the limit is 2"),
        ("max_prompt_tokens", ask((5, 6, 7)), "prompt has 3 tokens, but the limit is 2"),
    ],
)
def test_limits_are_settings(setting: str, request_: Request, words: str) -> None:
    with toy_runner(**{setting: 2}) as runner, pytest.raises(InvalidRequest, match=words):
        runner.complete_sync([request_])


def test_thousands_that_are_late_end_in_pieces() -> None:
    engine = toy_engine(max_batch_size=1)
    many = 2 * MOST_LATE + 7
    for i in range(many):
        engine.add_request(replace(ask((2, 3 + i % 80)), deadline=time.monotonic()))
    counts = []
    while engine.has_work:
        counts.append(len(engine.step()))
    assert counts == [MOST_LATE, MOST_LATE, 7]


async def test_a_request_whose_deadline_passes_in_the_queue_is_never_computed() -> None:
    gate = Gate()
    with toy_runner(max_batch_size=1, gate=gate) as runner:
        before = runner.stats()
        long = asyncio.create_task(runner.complete([ask((1,), max_tokens=60)]))
        await gate.held()
        stream = await runner.submit([ask((9,) * 20, n=2)], timeout=0)
        outputs = [output async for outputs in stream for output in outputs]
        assert [type(output.error) for output in outputs] == [DeadlineExceeded] * 2
        gate.open()
        await long
        settled(runner)
        assert runner.stats().prefix_queries == before.prefix_queries  # nobody asked for blocks


def test_the_engine_itself_looks_at_deadlines() -> None:
    engine = toy_engine(max_batch_size=1)
    late = replace(ask((2, 3), n=2), deadline=time.monotonic())
    answers = engine.generate([ask((5,), max_tokens=3), late, ask((6,), max_tokens=3)])
    assert [a.finish_reason for answer in answers for a in answer] == [
        *("length", "error", "error", "length")
    ]
    assert isinstance(answers[1][0].error, DeadlineExceeded)
    assert "while it waited" in answers[1][1].error.message
    assert engine.stats().prompt_tokens == 4  # taken in, but only two were looked at
    assert engine.stats().blocks_used == 0


async def test_tokens_are_bounded_too() -> None:
    limits = {"max_queue_tokens": 100, "caller_share": 1}  # and 256 in the cache
    with toy_runner(gate=Gate(), **limits) as runner:
        first = await runner.submit([ask((1,) * 40, n=10, max_tokens=20)])
        with pytest.raises(Overloaded, match=r"tokens to work on, and 21 more .* limit of 356"):
            await runner.submit([ask((1,), max_tokens=20)])
        first.close()


KEYS = "alice alices-key-0123456789, bob bobs-key-9876543210"


async def test_a_key_has_its_share_of_the_queue_and_others_theirs() -> None:
    sizes = {"max_batch_size": 2, "max_queue": 6}
    gate = Gate()
    with toy_runner(gate=gate, api_keys=KEYS, **sizes) as runner:
        with working_for(CallContext("id", caller="alice")):
            runner.check_room("alice")
            streams = [await runner.submit([ask((i + 1,), max_tokens=30)]) for i in range(4)]
            with pytest.raises(Overloaded, match=r"this caller has 4 .* share of 4 "):
                await runner.submit([ask()])
            with pytest.raises(Overloaded, match="this caller"):
                runner.check_room("alice")
        with working_for(CallContext("id", caller="bob")):
            runner.check_room("bob")
            gate.open()
            [[answer]] = await runner.complete([ask(max_tokens=3)])
            assert answer.finish_reason == "length"
        assert [await _reasons(stream) for stream in streams] == [["length"]] * 4


async def test_scores_of_a_full_caller_are_no_others_loss() -> None:
    """BentoML's batcher brings items of several calls together."""
    calls = [CallContext("1", caller="alice"), CallContext("2", caller="bob")]
    gate = Gate()
    with toy_runner(max_batch_size=2, max_queue=6, api_keys=KEYS, gate=gate) as runner:
        with working_for(calls[0]):
            open = await runner.submit([ask((i + 1,), max_tokens=30) for i in range(4)])
        items = [score_request((1, 2, i)) for i in range(4)]
        by_call = {item.request_id: calls[i % 2] for i, item in enumerate(items)}
        scoring = asyncio.create_task(runner.score(items, calls=by_call))
        await until(lambda: len(runner._thread._states) == 4 + 2)  # bob's were taken
        gate.open()
        answers = await scoring
        open.close()
    assert [type(answer.error) for answer in answers] == [Overloaded, type(None)] * 2


@pytest.mark.parametrize("ask_for_all", [PythiaRunner.score, PythiaRunner.complete])
async def test_thousands_are_checked_and_queued_in_turns_with_others(
    monkeypatch: pytest.MonkeyPatch, ask_for_all: Any
) -> None:
    turn, checked, queued = [0], [], []

    async def others() -> None:
        while True:
            turn[0] += 1
            await asyncio.sleep(0)

    def checking(request: Request, limits: Limits) -> None:
        checked.append(turn[0])
        validate(request, limits)

    def queueing(intake: Intake, request: Request, _add: Any = Intake.add) -> None:
        queued.append(turn[0])
        _add(intake, request)

    monkeypatch.setattr(served_module, "validate", checking)
    monkeypatch.setattr(Intake, "add", queueing)
    monkeypatch.setattr(turns, "PIECE_SECONDS", 0.0)  # no piece is short enough
    with toy_runner() as runner:
        task = asyncio.create_task(others())
        await ask_for_all(runner, [score_request((5,) * 60) for _ in range(100)])
        task.cancel()
    for seen in (checked, queued):
        assert len(seen) == 100 and max(Counter(seen).values()) == 1


async def test_more_scores_than_the_queue_has_places_for() -> None:
    with toy_runner(max_batch_size=2, max_queue=6) as runner:
        answers = await runner.score([score_request((1, 2, i % 90)) for i in range(100)])
    assert [answer.error for answer in answers] == [None] * 100


async def test_a_caller_with_a_long_queue_does_not_delay_another() -> None:
    gate = Gate()
    with toy_runner(max_batch_size=2, gate=gate) as runner:
        ended: list[str] = []

        async def run(name: str, request: Request) -> None:
            with working_for(CallContext("id", caller=name)):
                await runner.complete([request])
            ended.append(name)

        many = [asyncio.create_task(run("a", ask((i + 1,), max_tokens=4))) for i in range(60)]
        await until(lambda: len(runner._thread._states) == 60)
        one = asyncio.create_task(run("b", ask((99,), max_tokens=4)))
        await until(lambda: len(runner._thread._states) == 61)
        gate.open()
        await asyncio.gather(one, *many)
        assert ended.index("b") < 15


async def _reasons(stream) -> list[str | None]:
    outputs = [output async for outputs in stream for output in outputs]
    return [output.finish_reason for output in outputs if output.finish_reason]


async def test_thousands_that_begin_or_leave_are_in_nobody_elses_way() -> None:
    """What is ordered of the engine's thread is done caller by caller."""
    begun: list[str] = []
    with toy_runner(max_queue=4096, api_keys=KEYS, caller_share=1) as runner:
        engine = runner._thread._engine
        add = engine.add_request

        def adding(request: Request) -> None:
            begun.append(request.caller)
            add(request)

        def blocked(request_id: str, abort: Any = engine.abort) -> object:
            begun.append("left")
            return abort(request_id)

        engine.add_request, engine.abort = adding, blocked
        with runner._thread._wake:  # the thread does nothing before all is ordered
            with working_for(CallContext("id", caller="alice")):
                many = await runner.submit([ask((i % 90,), max_tokens=9) for i in range(2000)])
                many.close()
            with working_for(CallContext("id", caller="bob")):
                one = await runner.submit([ask(max_tokens=2)])
        assert await _reasons(one) == ["length"]
        settled(runner)
        assert begun.index("bob") <= 1
        assert Counter(begun)["alice"] == 2000 and Counter(begun)["left"] == 2000
