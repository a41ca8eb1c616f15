"""Scores that a device tells when the next step is under way."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.errors import NonFiniteLogits
from tests.unit.engine.toy import POISON, LateExecutor, request, toy_engine


def scored(id: str, *prompt: int, top: int = 0):
    return request(id, prompt=prompt, max_tokens=0, prompt_logprobs=top)


def test_scores_come_when_the_next_step_is_under_way() -> None:
    handed_over: list[list[str]] = []

    def note(chunks: list[Chunk]) -> None:
        handed_over.append([chunk.sequence.request.request_id for chunk in chunks])

    engine = toy_engine(before=note, kind=LateExecutor, max_batch_size=4, max_tokens_per_step=4)
    engine.add_request(scored("a", 5, 6, 7, 8))
    engine.add_request(scored("b", 9, 5, 6, 7))
    assert engine.step() == []
    [first] = engine.step()
    assert handed_over == [["a"], ["b"]]
    assert (first.request_id, first.finish_reason) == ("a", "length")
    [second] = engine.step()  # which has nothing else to do
    assert handed_over == [["a"], ["b"]]
    assert second.request_id == "b"
    assert not engine.has_work
    assert engine.stats().blocks_used == 0


def test_where_others_may_come_nothing_is_queued_behind_a_step_in_no_hurry() -> None:
    """Whoever comes waits for the rest of one step then, not for two."""
    engine = toy_engine(kind=LateExecutor, max_batch_size=4, max_tokens_per_step=4)
    engine.add_request(replace(scored("first", 5, 6, 7, 8), caller="somebody"))
    while engine.has_work:
        engine.step()
    for id in "abc":
        asked = scored(id, 5, 6, 7, ord(id) - 90)
        engine.add_request(replace(asked, priority=10, caller="sweep"))
    told = [[output.request_id for output in engine.step()] for _ in range(3)]
    assert told == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("budget", [4, 5, 7, 64])
@pytest.mark.parametrize("top", [0, 1, 3])
def test_late_scores_are_those_of_other_executors(budget: int, top: int) -> None:
    prompts = [(5,), (6, 7), tuple(range(2, 20)), tuple(range(9, 30)), (3, POISON, 4, 5, 6)]
    asked = [scored(str(i), *prompt, top=top) for i, prompt in enumerate(prompts)]
    sizes = {"max_batch_size": 4, "max_tokens_per_step": budget}
    late = toy_engine(16, kind=LateExecutor, **sizes).generate(asked)
    plain = toy_engine(64, max_tokens_per_step=256).generate(asked)
    for [found], [wanted] in zip(late, plain, strict=True):
        assert found.prompt_logprobs == wanted.prompt_logprobs
        assert str(found.error) == str(wanted.error)
    assert isinstance(late[-1][0].error, NonFiniteLogits)


def test_first_tokens_come_when_the_next_prompts_are_under_way() -> None:
    handed_over: list[list[str]] = []

    def note(chunks: list[Chunk]) -> None:
        handed_over.append([chunk.sequence.request.request_id for chunk in chunks])

    engine = toy_engine(before=note, kind=LateExecutor, max_batch_size=4, max_tokens_per_step=4)
    engine.add_request(request("a", (5, 6, 7, 8), max_tokens=1))
    engine.add_request(request("b", (9, 5, 6, 7), max_tokens=2, ignore_eos=True))
    assert engine.step() == []
    first, second = engine.step()  # nobody waits any more, so that "b" is told at once
    assert handed_over == [["a"], ["b"]]
    assert (first.request_id, first.finish_reason, len(first.token_ids)) == ("a", "length", 1)
    assert (second.request_id, second.finish_reason, len(second.token_ids)) == ("b", None, 1)


@pytest.mark.parametrize("num_blocks", [12, 64])
def test_late_tokens_are_those_of_other_executors(num_blocks: int) -> None:
    draw = random.Random(num_blocks)
    asked = [
        request(
            str(i),
            tuple(draw.randrange(1, 90) for _ in range(draw.randint(1, 20))),
            max_tokens=draw.randint(1, 12),
            temperature=draw.choice([0.0, 1.0]),
            logprobs=draw.choice([None, 1]),
            seed=i,
        )
        for i in range(30)
    ]
    asked.append(request("bad", (3, POISON, 4)))
    late = toy_engine(num_blocks, kind=LateExecutor, max_batch_size=6, max_tokens_per_step=16)
    plain = toy_engine(256, max_tokens_per_step=256).generate(asked)
    for [found], [wanted] in zip(late.generate(asked), plain, strict=True):
        assert (found.token_ids, found.logprobs) == (wanted.token_ids, wanted.logprobs)
        assert (found.text, found.finish_reason) == (wanted.text, wanted.finish_reason)
    late.check()
    assert late.stats().blocks_used == 0


def test_an_aborted_request_has_no_late_scores() -> None:
    engine = toy_engine(kind=LateExecutor)
    engine.add_request(scored("a", 5, 6, 7))
    assert engine.step() == []
    [ended] = engine.abort("a")
    assert (ended.finish_reason, ended.prompt_logprobs) == ("abort", None)
    assert engine.step() == []
    engine.check()
    assert engine.stats().blocks_used == 0


def test_a_closed_engine_forgets_what_was_under_way() -> None:
    engine = toy_engine(kind=LateExecutor)
    engine.add_request(scored("a", 5, 6, 7))
    engine.step()
    assert [output.finish_reason for output in engine.close()] == ["abort"]


def test_the_pace_is_that_of_the_device_not_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is handed over at once counts with the time until its scores are there."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Device(LateExecutor):
        """Takes a second for each step, and none to hand one over."""

        def _execute(self, chunks: list[Chunk], others_wait: bool) -> list[ChunkResult | None]:
            results = super()._execute(chunks, others_wait)
            for result in results:
                assert result and result.complete
                result.complete = self._slowly(result.complete)
            return results

        def _slowly(self, complete):
            def later() -> None:
                now[0] += 1.0
                complete()

            return later

    engine = toy_engine(kind=Device, max_batch_size=4, max_tokens_per_step=8)
    seen: list[tuple[int, float]] = []
    monkeypatch.setattr(engine._scheduler.pace, "observe", lambda *step: seen.append(step))
    engine.generate([scored(str(i), *range(2, 10)) for i in range(3)])
    assert seen == [(8, 1.0)] * 3
