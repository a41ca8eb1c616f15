"""Events of a sweep on their way to a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from pythia_bento.errors import DeadlineExceeded, EngineUnavailable
from pythia_bento.protocol.sweep import Checkpoint, End, Event, Row, Start
from pythia_bento.server import sweeping
from pythia_bento.server.sweeping import BATCH_ROWS, BATCH_TOKENS, SweepAnswer

START, END = Start("key", 1, 1000), End(1, 0)
CHECKPOINT = Checkpoint(0, "toy@step1", 1, 2_097_152, None, "w1", "print")


class Told:
    """A sweep of given events, and how far it was read; others are waited for, or raised."""

    def __init__(self, *events: Event | asyncio.Event | Exception) -> None:
        self._left = list(events)
        self.read = 0
        self.is_closed = False

    async def events(self) -> AsyncGenerator[Event, None]:
        try:
            for event in self._left:
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, asyncio.Event):
                    await event.wait()
                    continue
                self.read += 1
                yield event
        finally:
            self.is_closed = True


def answer_of(told: Told, check_open: Callable[[], None] = lambda: None) -> SweepAnswer:
    return SweepAnswer(told.events(), check_open)


def rows(count: int, tokens: int = 0) -> list[Row]:
    ids = tuple(range(tokens)) if tokens else None
    return [Row(checkpoint=0, item=number, token_ids=ids) for number in range(count)]


async def test_what_comes_together_goes_together() -> None:
    gate = asyncio.Event()
    answer = answer_of(Told(START, CHECKPOINT, *rows(3), gate, *rows(2), END))
    found = []
    async for batch in answer.batches():
        found.append(len(batch))
        gate.set()
    assert found == [5, 3]
    await answer.close()


@pytest.mark.parametrize(("tokens", "most"), [(0, BATCH_ROWS), (2000, BATCH_TOKENS // 2000 + 1)])
async def test_batches_are_small_and_nothing_is_read_ahead(tokens: int, most: int) -> None:
    told = Told(*rows(1000, tokens))
    answer = answer_of(told)
    given = 0
    async for batch in answer.batches():
        assert len(batch) <= most
        given += len(batch)
        assert told.read <= given + 1
    assert given == 1000
    await answer.close()


async def test_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "SILENCE_SECONDS", 0.001)
    gate = asyncio.Event()
    answer = answer_of(Told(START, gate, END))
    batches = answer.batches()
    first = [await anext(batches) for _ in range(4)]
    assert first == [[START], [], [], []]
    gate.set()
    assert [event async for batch in batches for event in batch] == [END]
    await answer.close()


async def test_what_came_before_a_failure_is_told_first() -> None:
    answer = answer_of(Told(START, *rows(2), DeadlineExceeded("too late")))
    found: list[Event] = []
    with pytest.raises(DeadlineExceeded, match="too late"):
        async for batch in answer.batches():
            found += batch
    assert found == [START, *rows(2)]
    await answer.close()


async def test_no_checkpoint_is_begun_while_the_server_shuts_down() -> None:
    def check_open() -> None:
        raise EngineUnavailable("the server is shutting down")

    answer = answer_of(Told(START, CHECKPOINT, *rows(2), END), check_open)
    found: list[Event] = []
    with pytest.raises(EngineUnavailable, match="shutting down"):
        async for batch in answer.batches():
            found += batch
    assert found == [START]
    await answer.close()


async def test_closing_ends_it_wherever_it_is() -> None:
    for events in ((START, asyncio.Event()), (START, END), (asyncio.Event(),), ()):
        told = Told(*events)
        answer = answer_of(told)
        reading = asyncio.ensure_future(_read(answer))
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait((reading,))
        await answer.close()
        await answer.close()
        assert told.is_closed


async def _read(answer: SweepAnswer) -> None:
    async for _ in answer.batches():
        pass
