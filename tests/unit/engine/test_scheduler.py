"""Scheduler: what goes into a step, and who gives way when blocks run out."""

from __future__ import annotations

import pytest

from pythia_bento.engine.block_pool import BlockPool
from pythia_bento.engine.scheduler import Scheduler
from pythia_bento.engine.sequence import Sequence
from tests.unit.engine.toy import TOKENIZER, request

BLOCK = 4


@pytest.fixture
def scheduler():
    return make(blocks=16)


def make(blocks, max_seqs=8, max_tokens=16, most_tokens=0):
    return Scheduler(BlockPool(blocks), BLOCK, max_seqs, max_tokens, most_tokens=most_tokens)


def add(scheduler, order, length, first=2, **params):
    params = {"max_tokens": 20, **params}
    prompt = tuple(range(first, first + length))
    sequence = Sequence(request(str(order), prompt, **params), 0, order, TOKENIZER, BLOCK)
    scheduler.add(sequence)
    return sequence


def step(scheduler):
    """Schedule and pretend to compute; (order, start, count) of each chunk."""
    chunks = scheduler.schedule()
    shape = [(chunk.sequence.order[0], chunk.start, chunk.count) for chunk in chunks]
    for chunk in chunks:
        if chunk.samples:
            chunk.sequence.accept(50)
        scheduler.advance(chunk.sequence, chunk.count)
    scheduler.pool.check(sequence.blocks for sequence in scheduler.running)
    return shape


def test_nothing_to_do(scheduler):
    assert scheduler.schedule() == []


def test_prompts_share_the_budget_in_order_of_arrival(scheduler):
    add(scheduler, 1, 10, first=2)
    add(scheduler, 2, 10, first=20)
    assert step(scheduler) == [(1, 0, 10), (2, 0, 6)]
    assert step(scheduler) == [(1, 10, 1), (2, 6, 4)]
    assert step(scheduler) == [(1, 11, 1), (2, 10, 1)]


def test_decoding_goes_on_beside_a_long_prompt(scheduler):
    add(scheduler, 1, 3, first=2)
    step(scheduler)
    add(scheduler, 2, 40, first=20)
    assert step(scheduler) == [(1, 3, 1), (2, 0, 15)]
    assert step(scheduler) == [(1, 4, 1), (2, 15, 15)]


def fast(**sizes):
    """A scheduler whose device is known to compute large steps at once."""
    scheduler = make(blocks=64, most_tokens=40, **sizes)
    scheduler.pace.observe(1000, 1e-3)
    return scheduler


def test_steps_are_larger_where_nobody_waits_for_a_next_token():
    scheduler = fast()
    for order in range(3):  # one token is the first and the last
        add(scheduler, order, 20, 2 + 20 * order, max_tokens=order % 2)
    assert step(scheduler) == [(0, 0, 20), (1, 0, 12)]
    assert step(scheduler) == [(1, 12, 8), (2, 0, 20)]


def test_steps_are_no_larger_where_somebody_does():
    scheduler = fast()
    sequence = add(scheduler, 0, 18, max_tokens=2)
    assert step(scheduler) == [(0, 0, 18)]
    add(scheduler, 1, 40, first=60, max_tokens=0)
    assert step(scheduler) == [(0, 18, 1), (1, 0, 15)]
    scheduler.remove(sequence)
    assert step(scheduler) == [(1, 15, 25)]


def test_who_has_not_been_told_its_first_token_will_wait_for_the_next():
    scheduler = fast()
    sequence = add(scheduler, 0, 18, max_tokens=2)
    [chunk] = scheduler.schedule()
    scheduler.advance(sequence, chunk.count)  # what it found comes later
    add(scheduler, 1, 40, first=60, max_tokens=0)
    assert step(scheduler) == [(1, 0, 16)]


def test_the_batch_is_bounded():
    scheduler = make(blocks=16, max_seqs=2)
    for order in range(3):
        add(scheduler, order, 2, first=2 + 10 * order)
    assert [order for order, _, _ in step(scheduler)] == [0, 1]


def test_only_the_last_piece_of_a_prompt_samples(scheduler):
    add(scheduler, 1, 20)
    assert [chunk.samples for chunk in scheduler.schedule()] == [False]
    step(scheduler)
    assert [chunk.samples for chunk in scheduler.schedule()] == [True]


def test_scoring_never_samples(scheduler):
    add(scheduler, 1, 3, max_tokens=0)
    assert [chunk.samples for chunk in scheduler.schedule()] == [False]


def test_a_known_prefix_is_read_and_one_token_is_always_computed(scheduler):
    first = add(scheduler, 1, 8)
    step(scheduler)
    scheduler.remove(first)
    second = add(scheduler, 2, 8)
    assert step(scheduler) == [(2, 4, 4)]
    assert second.num_cached_tokens == 4
    assert (scheduler.num_prefix_queries, scheduler.num_prefix_hits) == (7 + 7, 4)


def test_running_sequences_share_a_prefix(scheduler):
    first = add(scheduler, 1, 9)
    step(scheduler)
    second = add(scheduler, 2, 9)
    step(scheduler)
    assert second.blocks[:2] == first.blocks[:2]
    assert second.blocks[2] != first.blocks[2]


def test_unfinished_blocks_are_not_shared(scheduler):
    add(scheduler, 1, 9)
    scheduler.schedule()  # not computed yet
    second = add(scheduler, 2, 9)
    scheduler.schedule()
    assert second.num_cached_tokens == 0


def test_partly_filled_blocks_are_not_shared(scheduler):
    add(scheduler, 1, 7)
    step(scheduler)
    assert scheduler.pool.num_cached == 1
    step(scheduler)
    assert scheduler.pool.num_cached == 2, "a generated token has filled the second"


def test_idle_cached_blocks_are_counted_as_used_when_they_are_read():
    scheduler = make(blocks=4)
    scheduler.remove(_computed(scheduler, 1))  # leaves two cached blocks
    add(scheduler, 2, 7, first=30)
    step(scheduler)
    add(scheduler, 3, 9)
    assert [order for order, _, _ in step(scheduler)] == [2]


def test_a_preempted_sequence_fills_the_prefix_cache_again():
    scheduler = make(blocks=4)
    sequence = _computed(scheduler, 1)
    scheduler.pool.deallocate(sequence.release())
    scheduler.running.clear()
    scheduler.pool.deallocate(scheduler.pool.allocate(4))
    assert scheduler.pool.num_cached == 0
    scheduler.add(sequence)
    step(scheduler)
    assert scheduler.pool.num_cached == 2


def test_scoring_fills_the_prefix_cache_but_does_not_read_it(scheduler):
    scheduler.remove(_computed(scheduler, 1, prompt_logprobs=0))
    assert _computed(scheduler, 2, prompt_logprobs=0).num_cached_tokens == 0
    assert _computed(scheduler, 3).num_cached_tokens == 8


def _computed(scheduler, order, **params):
    sequence = add(scheduler, order, 9, **params)
    step(scheduler)
    return sequence


def test_the_youngest_gives_way_and_comes_back_with_its_tokens():
    scheduler = make(blocks=4)
    old, young = add(scheduler, 1, 4, first=2), add(scheduler, 2, 4, first=20)
    assert step(scheduler) == [(1, 0, 4), (2, 0, 4)]
    while young.status == "running":
        step(scheduler)
    generated = young.num_generated
    assert generated > 0
    assert scheduler.num_preemptions == 1
    assert (young.num_computed, young.blocks) == (0, [])
    scheduler.remove(old)
    (chunk,) = scheduler.schedule()
    assert chunk.sequence is young
    assert chunk.start + chunk.count == 4 + generated


def test_a_newcomer_leaves_the_running_ones_their_next_block():
    scheduler = make(blocks=3)
    add(scheduler, 1, 4, first=2)
    add(scheduler, 2, 8, first=20)
    assert step(scheduler) == [(1, 0, 4)]


def test_the_head_of_the_queue_is_not_overtaken():
    scheduler = make(blocks=6)
    first = add(scheduler, 1, 8, first=2)
    step(scheduler)
    add(scheduler, 2, 20, first=20)
    add(scheduler, 3, 2, first=60)
    assert [order for order, _, _ in step(scheduler)] == [1]
    scheduler.remove(first)
    assert [order for order, _, _ in step(scheduler)] == [2]


def test_leaving_frees_blocks_in_any_state(scheduler):
    running = add(scheduler, 1, 8)
    step(scheduler)
    waiting = add(scheduler, 2, 8, first=30)
    for sequence in (running, waiting, running):
        scheduler.remove(sequence)
        assert sequence.status == "finished"
    assert scheduler.pool.num_free == 16
    assert scheduler.schedule() == []
