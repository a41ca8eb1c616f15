"""A runner's shelf as a source, over toys: admission, errors, what is given back."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest

from pythia_bento.engine.params import Request, SamplingParams, new_request_id, score_request
from pythia_bento.errors import CheckpointError, ContextLengthExceeded, ModelNotFound
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.sweep.events import Checkpoint, End, Event, Failed, Row
from pythia_bento.sweep.here import CALLER, Here
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import SweepSpec
from tests.unit.engine.toy import POISON
from tests.unit.runtime.toy_runner import toy_runner
from tests.unit.runtime.toy_shelf import BROKEN, STEPS, toy_shelf, toy_step
from tests.unit.sweep.fakes import spec

IDS = [f"toy@step{step}" for step in STEPS]


async def swept(runner: PythiaRunner, items: int = 5, **fields: Any) -> list[Event]:
    asked = spec(items, **{"models": IDS, **fields})
    return [event async for event in run(asked, Here(runner))]


def rows(events: list[Event], index: int) -> list[Row]:
    found = [e for e in events if isinstance(e, Row) and e.checkpoint == index]
    return sorted(found, key=lambda row: row.item)


async def test_rows_are_those_of_a_runner_of_each_step_alone() -> None:
    with toy_shelf(capacity=3, max_batch_size=2) as runner:
        events = await swept(runner, items=7, task={"tokens": True})
        assert events[-1] == End(6, 0)
    for index, step in enumerate(STEPS):
        with toy_step(step) as alone:
            for row in rows(events, index):
                request = score_request((5, 6, 7 + row.item), 0)
                [answer] = alone.complete_sync([request])[0]
                scored = answer.prompt_logprobs
                assert scored is not None and row.logprobs is not None
                assert row.token_ids == tuple(scored.ids.tolist())
                assert row.logprobs == tuple(scored.values.tolist())
                assert row.ranks == tuple(scored.ranks.tolist())
                assert (row.logprob, row.num_tokens) == (sum(row.logprobs), 2)


async def test_a_damaged_checkpoint_and_a_missing_one_are_no_others_end() -> None:
    fault = CheckpointError(f"{BROKEN} is damaged")
    with toy_shelf(fault=fault) as runner:
        events = await swept(runner, models=[*IDS, "toy@step9"])
        failed = {e.model: e.error for e in events if isinstance(e, Failed)}
        assert failed.keys() == {BROKEN, "toy@step9"}
        assert failed[BROKEN].message == fault.message
        assert isinstance(failed["toy@step9"], ModelNotFound)
        assert events[-1] == End(5, 2)
        assert len([e for e in events if isinstance(e, Row)]) == 5 * 5


async def test_what_is_wrong_with_an_item_is_its_row() -> None:
    with toy_runner() as runner:
        items = [{"prompt": [5, 6]}, {"prompt": [5] * 10_000}, {"prompt": [5, POISON, 6]}]
        asked = parse(SweepSpec, {"items": items, "models": ["toy"]})
        events = [event async for event in run(asked, Here(runner))]
        good, long, bad = rows(events, 0)
        assert good.error is None and good.num_tokens == 1
        assert isinstance(long.error, ContextLengthExceeded)
        assert bad.error is not None and bad.error.code == "non_finite_logits"
        assert events[-1] == End(1, 0)


async def test_a_full_server_is_waited_for() -> None:
    with toy_runner(max_batch_size=2, max_queue=0) as runner:
        events = await swept(runner, models=["toy"], items=9)
        assert events[-1] == End(1, 0)
        assert [row.error for row in rows(events, 0)] == [None] * 9


async def test_who_asks_and_how_urgently(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Request] = []
    with toy_runner() as runner:
        validate = runner._thread.submit

        def submit(intake: Any) -> None:
            seen.extend(state.timings.request for state in intake.states.values())
            validate(intake)

        monkeypatch.setattr(runner._thread, "submit", submit)
        await swept(runner, models=["toy"])
        assert {(one.caller, one.priority) for one in seen} == {(CALLER, 10)}
        seen.clear()
        asked = spec(2, models=["toy"], priority=-3)
        assert [e async for e in run(asked, Here(runner, "alice"))][-1] == End(1, 0)
        assert {(one.caller, one.priority) for one in seen} == {("alice", -3)}


async def test_a_reader_that_leaves_gives_everything_back() -> None:
    with toy_shelf(max_batch_size=2) as runner:  # which looks at the blocks at its end
        async with aclosing(run(spec(100, models=IDS), Here(runner))) as events:
            async for event in events:
                if isinstance(event, Row):
                    break


async def test_a_continuation_is_the_one_of_generate() -> None:
    task = {"type": "generate", "max_tokens": 5, "temperature": 0.9, "seed": 3, "logprobs": 0}
    with toy_runner() as runner:
        [row] = rows(await swept(runner, models=["toy"], items=1, task=task), 0)
        params = SamplingParams(max_tokens=5, temperature=0.9, seed=3, logprobs=0)
        [answer] = runner.complete_sync([Request(new_request_id(), (5, 6, 7), params)])[0]
        assert row.token_ids == tuple(answer.token_ids)
        assert (row.text, row.finish_reason) == (answer.text, answer.finish_reason)
        assert row.logprobs == tuple(token.logprob for token in answer.logprobs or ())


async def test_steps_and_names_of_a_shelf() -> None:
    with toy_shelf() as runner:
        source = Here(runner)
        assert await source.steps("toy") == set(STEPS)
        assert await source.steps("other") == set()
        assert source.ahead == 1  # of two places the default has one
        [known] = await source.look(["owner/toy@step5"])
        assert not isinstance(known, Exception) and known.weights == "w5"
        await source.prepare("toy@step9")  # which is nowhere: that is told when it is asked


async def test_a_lone_checkpoint_answers_to_its_names() -> None:
    with toy_runner() as runner:
        events = await swept(runner, models=["toy", "toy@step3", "other"])
        assert [e.computed for e in events if isinstance(e, Checkpoint)] == [True, False]
        assert events[-1] == End(2, 1)
