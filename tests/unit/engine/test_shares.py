"""A caller that fills the batch or the blocks gives way to one that has less."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from pythia_bento.engine.block_pool import BlockPool
from pythia_bento.engine.fair_queue import STEP_SECONDS
from pythia_bento.engine.outputs import collect
from pythia_bento.engine.params import Request
from pythia_bento.engine.scheduler import Scheduler
from pythia_bento.engine.sequence import Sequence
from tests.unit.engine.toy import TOKENIZER, LateExecutor, ToyExecutor, request, toy_engine

BLOCK = 4


def make(blocks: int = 256, max_seqs: int = 8, max_tokens: int = 64) -> Scheduler:
    return Scheduler(BlockPool(blocks), BLOCK, max_seqs, max_tokens)


def add(scheduler: Scheduler, caller: str, order: int, length: int = 4) -> Sequence:
    prompt = tuple(2 + (order * 7 + i) % 80 for i in range(length))
    asked = replace(request(str(order), prompt, max_tokens=40), caller=caller)
    sequence = Sequence(asked, 0, order, TOKENIZER, BLOCK)
    scheduler.add(sequence)
    return sequence


def step(scheduler: Scheduler) -> Counter[str]:
    """Schedule and pretend to compute; how many sequences of each caller were in it."""
    chunks = scheduler.schedule()
    for chunk in chunks:
        if chunk.samples:
            chunk.sequence.accept(50)
        scheduler.advance(chunk.sequence, chunk.count)
    scheduler.pool.check(sequence.blocks for sequence in scheduler.running)
    assert len({id(chunk.sequence) for chunk in chunks}) == len(chunks) <= scheduler.max_seqs
    assert all(chunk.sequence in scheduler.running for chunk in chunks)
    return Counter(chunk.sequence.request.caller for chunk in chunks)


def test_a_full_batch_makes_room_for_anothers_first_in_the_next_step() -> None:
    scheduler = make()
    own = [add(scheduler, "a", i) for i in range(20)]
    assert step(scheduler) == {"a": 8}
    first = add(scheduler, "b", 100)
    assert step(scheduler) == {"a": 7, "b": 1}
    assert first.num_generated == 1
    assert own[7].status == "waiting" and own[7].num_generated == 1  # what it has is kept
    scheduler.remove(first)
    assert step(scheduler) == {"a": 8}
    assert own[7].status == "running"


def test_each_gets_its_share_of_the_batch_and_no_more() -> None:
    scheduler = make()
    for i in range(20):
        add(scheduler, "a", i)
    step(scheduler)
    for i in range(20):
        add(scheduler, "b", 100 + i)
    step(scheduler)
    assert step(scheduler) == {"a": 4, "b": 4}
    preempted = scheduler.num_preemptions
    for _ in range(10):
        assert step(scheduler) == {"a": 4, "b": 4}
    assert scheduler.num_preemptions == preempted == 4
    add(scheduler, "c", 200)
    assert step(scheduler)["c"] == 1


def test_who_is_alone_gives_nothing_away() -> None:
    scheduler = make()
    for i in range(20):
        add(scheduler, "a", i)
    for _ in range(10):
        assert step(scheduler) == {"a": 8}
    assert scheduler.num_preemptions == 0


def test_blocks_are_shared_as_the_batch_is() -> None:
    scheduler = make(blocks=24)
    for i in range(4):
        add(scheduler, "a", i, length=16)
    for _ in range(4):
        step(scheduler)
    assert scheduler.pool.num_free < 6
    first = add(scheduler, "b", 100, length=20)
    step(scheduler)
    assert first.num_generated == 1


def test_who_holds_most_pays_for_its_own_growth() -> None:
    scheduler = make(blocks=24)
    for i in range(3):
        add(scheduler, "a", i, length=16)
    step(scheduler)
    young = add(scheduler, "b", 100, length=4)
    for _ in range(20):
        step(scheduler)
        assert young.status == "running"
    assert scheduler.num_preemptions > 0
    assert young.num_generated == 20


def test_nobody_overtakes_one_for_whom_others_gave_way() -> None:
    """It needs more than they had: until it fits nobody else begins, or they would come back."""
    scheduler = make(blocks=24)
    oldest = add(scheduler, "a", 0, length=28)
    for i in range(1, 4):
        add(scheduler, "a", i, length=8)
    step(scheduler)
    first = add(scheduler, "b", 100, length=64)
    running = []
    for _ in range(5):
        step(scheduler)
        running.append(len(scheduler.running))
        assert oldest.status == "running" and first.status == "waiting"
    assert running[0] < 4 and running == sorted(running, reverse=True)
    scheduler.remove(oldest)
    assert step(scheduler)["b"] == 1


def test_a_claim_ends_with_who_had_it() -> None:
    scheduler = make(blocks=24)
    own = [add(scheduler, "a", i, length=28 if i == 0 else 8) for i in range(4)]
    step(scheduler)
    first = add(scheduler, "b", 100, length=64)
    step(scheduler)
    assert own[-1].status == "waiting"
    scheduler.remove(first)
    step(scheduler)
    assert {sequence.status for sequence in own} == {"running"}


def test_a_newcomer_does_not_wait_for_anothers_long_prompt() -> None:
    scheduler = make(max_tokens=16)
    long = [add(scheduler, "a", i, length=100) for i in range(3)]
    step(scheduler)
    first = add(scheduler, "b", 100, length=6)
    assert step(scheduler) == {"a": 1, "b": 1}
    assert first.num_generated == 1
    assert [sequence.num_computed for sequence in long] == [16 + 10, 0, 0]
    second = add(scheduler, "b", 101, length=60)  # and takes no more than half of a step
    step(scheduler)
    assert second.num_computed == 15 // 2


def test_steps_are_short_while_others_are_about() -> None:
    scheduler = make(max_tokens=64)
    scheduler.pace.observe(100, STEP_SECONDS * 5)  # so 20 in the time that a step may take
    add(scheduler, "a", 1, length=200)
    assert [chunk.count for chunk in scheduler.schedule()] == [64]
    scheduler.pace.see(["b"])
    assert [chunk.count for chunk in scheduler.schedule()] == [20]


@pytest.mark.parametrize("kind", [ToyExecutor, LateExecutor])
@pytest.mark.parametrize("seed", range(4))
def test_giving_way_changes_no_answer(seed: int, kind: type[ToyExecutor]) -> None:
    rng = random.Random(seed)

    def asked(i: int) -> Request:
        prompt = tuple(rng.randrange(2, 90) for _ in range(rng.randrange(1, 20)))
        scored = {"max_tokens": 0, "prompt_logprobs": 1} if i % 5 == 4 else {"max_tokens": 12}
        made = request(str(i), prompt, n=rng.choice((1, 1, 3)), seed=i, **scored)
        return replace(made, caller="a" if i < 8 else rng.choice("bc"))

    requests = [asked(i) for i in range(16)]
    engine = toy_engine(24, kind=kind, max_batch_size=4, max_tokens_per_step=16)
    outputs = []
    for one in requests:  # the first caller fills the batch before the others come
        engine.add_request(one)
        outputs += engine.step()
    while engine.has_work:
        outputs += engine.step()
    shared = collect(requests, outputs)
    engine.check()
    alone = [toy_engine(64).generate([one])[0] for one in requests]
    assert engine.stats().preemptions > 0
    assert [[(o.token_ids, o.prompt_logprobs) for o in answer] for answer in shared] == [
        [(o.token_ids, o.prompt_logprobs) for o in answer] for answer in alone
    ]
