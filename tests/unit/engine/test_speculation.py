"""Drafts over a toy model, whose token is a hash of all that it reads from the cache."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import Chunk
from pythia_bento.engine.interventions import Intervention, interventions
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request
from pythia_bento.engine.speculation import MOST_ROWS
from pythia_bento.model.sites import EMBED, Place
from tests.amounts import rest_long
from tests.unit.engine.toy import BLOCK_SIZE, MAX_POSITIONS, POISON, request, toy_engine
from tests.unit.engine.toy_group import alone as alone_on
from tests.unit.engine.toy_group import ask, run, toy_group

# With them alone most n-grams were there before, and what follows is as often the same as not.
TWO = ((2, 100.0), (3, 100.0))
ONE = ((2, 100.0),)
CHANGED = interventions([Intervention(Place(EMBED), "scale", (0,), scale=2)])


class Watched:
    """Chunks of all steps of an engine that speculates."""

    def __init__(self, num_blocks: int = 64, **sizes: int) -> None:
        self.steps: list[list[Chunk]] = []
        self.engine = toy_engine(num_blocks, before=self._see, speculates=True, **sizes)

    def _see(self, chunks) -> None:
        self.steps.append([replace(chunk) for chunk in chunks])

    @property
    def drafted(self) -> list[list[int]]:
        return [[chunk.drafted for chunk in chunks] for chunks in self.steps]


def alone(asked: Request) -> list[SequenceOutput]:
    return toy_engine(256, max_tokens_per_step=256).generate([asked])[0]


def told(answers: list[SequenceOutput]) -> list[tuple[SequenceOutput, str]]:
    """All that a client gets of them, but how much was cached, which depends on the others."""
    return [(replace(one, num_cached_tokens=0, error=None), str(one.error)) for one in answers]


def test_text_that_repeats_takes_few_passes() -> None:
    watched = Watched(256)
    asked = request(prompt=(2, 2, 2), max_tokens=40, ignore_eos=True, logit_bias=ONE)
    assert watched.engine.generate([asked]) == [alone(asked)]
    stats = watched.engine.stats()
    assert stats.generation_tokens == 40
    assert stats.steps < 12
    assert stats.accepted_tokens == stats.draft_tokens == 40 - stats.steps
    assert stats.drafts == stats.steps - 1


def test_without_the_setting_there_are_no_drafts() -> None:
    engine = toy_engine()
    engine.generate([request(prompt=(2, 2, 2), max_tokens=40, ignore_eos=True, logit_bias=ONE)])
    stats = engine.stats()
    assert (stats.steps, stats.drafts, stats.draft_tokens, stats.accepted_tokens) == (40, 0, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_a_step_has_no_more_rows_than_pay(count: int) -> None:
    watched = Watched(256)
    asked = [
        request(str(i), (2, 2, 2), max_tokens=30, ignore_eos=True, logit_bias=ONE)
        for i in range(count)
    ]
    watched.engine.generate(asked)
    with_drafts = [chunks for chunks in watched.steps if any(c.drafted for c in chunks)]
    assert bool(with_drafts) == (count <= MOST_ROWS // 2)
    assert all(sum(c.count for c in chunks) <= MOST_ROWS for chunks in with_drafts)


def test_there_are_no_more_rows_than_tokens_in_a_step() -> None:
    watched = Watched(max_batch_size=2, max_tokens_per_step=3)
    watched.engine.generate([request(prompt=(2, 2, 2), max_tokens=30, logit_bias=ONE)])
    assert max(map(sum, watched.drafted)) == 2


def test_drafts_end_where_the_answer_and_the_context_do() -> None:
    for wanted in range(1, 12):
        asked = request(prompt=(2,) * (MAX_POSITIONS - wanted), max_tokens=wanted, logit_bias=ONE)
        watched = Watched()
        [[answer]] = watched.engine.generate([asked])
        assert len(answer.token_ids) == wanted
        ends = [chunk.start + chunk.count for chunks in watched.steps for chunk in chunks]
        assert max(ends) <= MAX_POSITIONS - 1 + (wanted == 1)


def test_without_free_blocks_drafts_fill_those_that_a_sequence_has() -> None:
    watched = Watched(5)
    asked = request(prompt=(2, 2, 2), max_tokens=16, ignore_eos=True, logit_bias=ONE)
    assert watched.engine.generate([asked]) == [alone(asked)]
    for chunks in watched.steps:
        for chunk in chunks:
            assert chunk.start + chunk.count <= 5 * BLOCK_SIZE
    assert watched.engine.stats().accepted_tokens > 0


def repeating(seed: int, **params: Any) -> Request:
    """A prompt whose own text says what is likely to follow, and chance that may differ."""
    return request(prompt=(2, 3, 2, 3, 2, 3, 2), seed=seed, temperature=3.0, **params)


@pytest.mark.parametrize("stop", [{"stop": ("aaa",)}, {"stop_token_ids": (4,)}, {}], ids=str)
def test_the_end_may_come_in_the_middle_of_a_draft(stop) -> None:
    engine = toy_engine(speculates=True)
    for seed in range(4):
        likely = ((2, 100.0), (3, 98.0), (4, 95.0), (0, 93.0))
        asked = repeating(seed, max_tokens=30, logit_bias=likely, logprobs=1, **stop)
        [answers] = engine.generate([asked])
        assert told(answers) == told(alone(asked))
        engine.check()
        assert engine.stats().blocks_used == 0
    assert engine.stats().accepted_tokens > 0


def test_a_failure_behind_a_draft_is_that_of_a_step() -> None:
    failed = 0
    for seed in range(6):
        likely = ((2, 100.0), (3, 98.0), (POISON, 96.0))
        asked = repeating(seed, max_tokens=40, logit_bias=likely, logprobs=0, ignore_eos=True)
        [found] = toy_engine(speculates=True).generate([asked])
        assert told(found) == told(alone(asked))
        failed += found[0].error is not None
    assert 0 < failed < 6


def test_a_device_without_memory_for_drafts_computes_the_step_alone() -> None:
    def refuse(chunks) -> None:
        if sum(chunk.count for chunk in chunks) > 3:
            raise MemoryError("no room")

    asked = request(prompt=(2, 2, 2), max_tokens=20, ignore_eos=True, logit_bias=ONE)
    engine = toy_engine(before=refuse, speculates=True)
    assert engine.generate([asked]) == [alone(asked)]


def mixed(draw: random.Random, id: str) -> Request:
    return request(
        id,
        tuple(draw.choice((2, 3)) for _ in range(draw.randint(1, 20))),
        draw.choice([1, 1, 3]),
        max_tokens=draw.choice([1, 5, 20, 40]),
        temperature=draw.choice([0.0, 3.0]),
        seed=draw.randrange(9),
        logprobs=draw.choice([None, 2]),
        prompt_logprobs=draw.choice([None, None, 1]),
        min_tokens=draw.choice([0, 1]),
        stop=draw.choice([(), ("ab", "baa")]),
        stop_token_ids=draw.choice([(), (9,)]),
        repetition_penalty=draw.choice([1.0, 1.1]),
        presence_penalty=draw.choice([0.0, 0.9]),
        logit_bias=draw.choice([(), TWO, TWO, (*TWO, (9, 97.0))]),
    )


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", rest_long(range(2), range(2, 40)))
def test_checkpoints_in_turns_answer_as_each_does_alone(seed: int) -> None:
    draw = random.Random(seed)
    group = toy_group(
        3,
        draw.choice([1, 2]),
        num_blocks=draw.choice([24, 64]),
        max_batch_size=draw.choice([1, 3, 4]),
        max_tokens_per_step=32,
        speculates=True,
    )
    asked, answers = {}, {}
    for number in range(3):  # with drafts that are right
        one = ask(number, f"m{number}", max_tokens=40, ignore_eos=True, logit_bias=ONE)
        asked[one.request_id] = number, one
    for i in range(8):
        plain, number = mixed(draw, str(i)), draw.randrange(3)
        one = ask(number, plain.request_id, plain.prompt)
        changes = CHANGED if draw.random() < 0.2 else None
        one = replace(one, params=plain.params, n=plain.n, interventions=changes)
        asked[one.request_id] = number, one
    for _, one in asked.values():
        group.add_request(one)
    for output in run(group):
        key = output.request_id, output.index
        if key in answers:
            answers[key].extend(output)
        else:
            answers[key] = output
    assert group.stats().accepted_tokens > 0
    assert group.stats().blocks_used == 0
    for id, (number, one) in asked.items():
        found = [answers[id, index] for index in range(one.n)]
        assert told(found) == told(alone_on(number, one))


def drain(engine: Engine) -> None:
    while engine.has_work:
        engine.step()
        engine.check()


def test_cancelled_in_the_middle_leaves_no_block() -> None:
    for steps in range(1, 12, 3):
        watched = Watched()
        watched.engine.add_request(
            request("a", (2, 2, 2), 2, max_tokens=40, ignore_eos=True, logit_bias=TWO)
        )
        for _ in range(steps):
            watched.engine.step()
        watched.engine.abort("a")
        drain(watched.engine)
        assert watched.engine.stats().blocks_used == 0
