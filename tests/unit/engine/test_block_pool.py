"""BlockPool: references, the prefix cache, eviction, and a state machine over all of it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pythia_bento.engine.block_pool import ROOT_HASH, BlockPool, hash_block, hash_blocks
from tests.amounts import amounts


def chain(*tokens):
    names, parent = [], ROOT_HASH
    for token in tokens:
        parent = hash_block(parent, bytes([token]))
        names.append(parent)
    return names


def test_names_of_many_blocks_are_those_of_each():
    assert hash_blocks(ROOT_HASH, bytes([1, 2, 3]), 1) == chain(1, 2, 3)
    assert hash_blocks(*chain(1), bytes([2, 3]), 1) == chain(1, 2, 3)[1:]


def cached(pool, *tokens):
    """Allocate, publish and free a chain, as a finished sequence does."""
    blocks = pool.allocate(len(tokens))
    pool.publish(blocks, chain(*tokens))
    pool.deallocate(blocks)
    return blocks


def test_a_name_depends_on_everything_before_it():
    assert chain(1, 2)[1] != chain(3, 2)[1]
    assert chain(1, 2) == chain(1, 2)


def test_finds_the_longest_known_beginning():
    pool = BlockPool(4)
    blocks = cached(pool, 1, 2)
    assert pool.lookup(chain(1, 2, 3)) == blocks
    assert pool.lookup(chain(1, 9, 2)) == blocks[:1]
    assert pool.lookup(chain(9)) == []


def test_shared_blocks_stay_until_the_last_holder_left():
    pool = BlockPool(2)
    blocks = cached(pool, 1)
    assert pool.num_idle(blocks) == 1
    pool.share(blocks)
    pool.share(blocks)
    assert pool.num_idle(blocks) == 0
    pool.deallocate(blocks)
    assert pool.num_free == 1
    pool.deallocate(blocks)
    assert pool.num_free == 2
    pool.check()


def test_blank_blocks_go_first_then_the_least_recently_used():
    pool = BlockPool(4)
    old, new = cached(pool, 1), cached(pool, 2, 3)
    blank = pool.allocate(1)
    assert not set(blank) & {*old, *new}
    assert pool.allocate(1) == old
    assert pool.allocate(1) == new[1:], "the end of a chain goes before its beginning"
    assert pool.lookup(chain(2, 3)) == new[:1]


def test_a_second_block_of_the_same_name_stays_unnamed():
    pool = BlockPool(2)
    first = cached(pool, 1)
    pool.share(first)
    second = pool.allocate(1)
    pool.publish(second[:1], chain(1))
    assert pool.lookup(chain(1)) == first
    pool.check([first, second])


def test_forgotten_blocks_are_not_found():
    pool = BlockPool(2)
    blocks = cached(pool, 1)
    pool.share(blocks)
    pool.forget(blocks)
    assert pool.lookup(chain(1)) == []
    assert pool.num_cached == 0
    pool.deallocate(blocks)
    pool.check()


def test_misuse_is_an_error():
    pool = BlockPool(1)
    with pytest.raises(RuntimeError, match="2 blocks asked, 1 free"):
        pool.allocate(2)
    block = pool.allocate(1)
    with pytest.raises(RuntimeError, match="references differ"):
        pool.check()
    pool.deallocate(block)
    with pytest.raises(RuntimeError, match="free already"):
        pool.deallocate(block)


class PoolMachine(RuleBasedStateMachine):
    """Holders come and go; after each move the pool's books must agree with theirs."""

    def __init__(self):
        super().__init__()
        self.pool = BlockPool(6)
        self.holders = []

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=4))
    def hold(self, tokens):
        names = chain(*tokens)
        found = self.pool.lookup(names)
        missing = len(names) - len(found)
        if missing + self.pool.num_idle(found) > self.pool.num_free:
            return
        self.pool.share(found)
        blocks = found + self.pool.allocate(missing)
        assert len(set(blocks)) == len(blocks)
        self.pool.publish(blocks, names)
        self.holders.append(blocks)

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), forget=st.booleans())
    def leave(self, data, forget):
        blocks = self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))
        if forget:
            self.pool.forget(blocks)
        self.pool.deallocate(blocks)

    @invariant()
    def books_agree(self):
        self.pool.check(self.holders)

    def teardown(self):
        for blocks in self.holders:
            self.pool.deallocate(blocks)
        assert self.pool.num_free == 6
        self.pool.check()


@amounts(30, 300)
def test_holders_come_and_go(amount):
    run_state_machine_as_test(PoolMachine, settings=settings(deadline=None, max_examples=amount))


def test_what_becomes_free_is_kept_for_those_who_were_refused_in_their_order() -> None:
    pool, first, second, third = BlockPool(8), object(), object(), object()
    held = pool.allocate(6)
    assert not pool.claim(first, 5)
    assert not pool.claim(second, 1), "two are free, and they are another's"
    pool.deallocate(held[:3])
    assert pool.claim(first, 5)
    pool.unclaim(first)
    assert pool.claim(second, 1) and pool.claim(third, 4) and not pool.claim(third, 5)
    pool.unclaim(second)
    pool.unclaim(second)
    assert not pool.claim(third, 6) and pool.claim(third, 5)


def test_who_is_alone_is_refused_what_is_not_free_and_nothing_else() -> None:
    pool, owner = BlockPool(8), object()
    assert not pool.claim(owner, 9) and pool.claim(owner, 8) and pool.claim(owner, 1)
