"""Long work in an event loop: in pieces, one in some turns, callers by turns."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from pythia_bento.runtime import turns
from pythia_bento.runtime.turns import TURNS_BETWEEN, RoundRobin, Turns
from pythia_bento.telemetry.calls import CallContext, working_for
from tests.unit.turning import turning


@pytest.fixture(autouse=True)
def no_piece_is_short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PIECE_SECONDS", -1.0)


async def work(caller: str, pieces: int, done: list[str]) -> None:
    with working_for(CallContext("id", caller=caller)):
        own = Turns()
        for _ in range(pieces):
            await own.take()
            done.append(caller)


async def test_however_much_there_is_one_piece_is_done_in_some_turns() -> None:
    at: list[int] = []

    async def piece() -> None:
        own = Turns()
        for _ in range(3):
            await own.take()
            at.append(turned())

    async with turning() as turned:
        await asyncio.gather(*(piece() for _ in range(20)))
    assert len(at) == 60
    assert min(after - before for before, after in pairwise(at)) >= TURNS_BETWEEN - 1


async def test_callers_have_pieces_by_turns() -> None:
    done: list[str] = []
    many = [work("many", 4, done) for _ in range(50)]
    await asyncio.gather(*many, work("few", 4, done))
    assert len(done) == 204
    assert max(place for place, caller in enumerate(done) if caller == "few") <= 8


async def test_who_was_cancelled_has_no_turn_and_holds_nobody_up() -> None:
    done: list[str] = []
    tasks = [asyncio.create_task(work("a", 3, done)) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert done == ["a"] * 6


def test_many_values_are_freed_while_the_loop_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PIECE_SECONDS", 0.0)
    sizes: list[int] = []

    async def watch(values: list[object]) -> None:
        while values:
            sizes.append(len(values))
            await asyncio.sleep(0)

    async def both() -> None:
        values = [object() for _ in range(50)]
        await asyncio.gather(watch(values), turns.freed(values))
        assert values == []

    asyncio.run(both())
    assert len(sizes) >= 50


def test_callers_have_turns_and_their_entries_keep_their_order() -> None:
    queue: RoundRobin[str] = RoundRobin()
    for entry in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.add(entry[0], entry)
    assert len(queue) == 6
    assert [queue.take() for _ in range(4)] == ["a1", "b1", "c1", "a2"]
    queue.add("c", "c2")
    assert [queue.take() for _ in range(3)] == ["b2", "a3", "c2"]
    assert not queue
    with pytest.raises(KeyError):
        queue.take()
