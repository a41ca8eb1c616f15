"""A sweep on its way to a client, the same for every transport: what comes together goes together.

Nothing is pulled ahead of the client: while it does not read, the sweep waits, and the memory of
both is a batch and what the sweep holds by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from pythia_bento.errors import PythiaError
from pythia_bento.protocol.sweep import Checkpoint, Event, Row
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.part import Limits
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import SweepRequest
from pythia_bento.telemetry.calls import current_call

SILENCE_SECONDS = 15.0  # after which a client is told that there is nothing to tell
MOST_NUMBERS = 4096  # of a row of activations: an event with more would be written for too long
BATCH_ROWS, BATCH_TOKENS = 256, 2**14  # of a batch, at most, and one row more


class SweepAnswer:
    """The events of one sweep; whoever reads them closes it."""

    def __init__(self, events: AsyncGenerator[Event, None], check_open: Callable[[], None]) -> None:
        """``check_open`` raises EngineUnavailable where the server does not begin anything new."""
        self._events, self._check_open = events, check_open
        self._coming: asyncio.Task[Event | None] | None = None
        self._first: list[Event] | None = []
        self._failure: PythiaError | None = None

    @classmethod
    async def begin(
        cls, runner: PythiaRunner, spec: SweepRequest, check_open: Callable[[], None]
    ) -> SweepAnswer:
        """Up to the first event; raises what refuses the sweep as a whole."""
        await asyncio.to_thread(lambda: spec.key)  # of 8 MiB it takes long
        settings = runner.settings
        limits = Limits(settings.sweep_timeout, settings.request_timeout)
        answer = cls(run(spec, Here(runner, _caller(settings), MOST_NUMBERS), limits), check_open)
        try:
            answer._first = await answer._next()
        except BaseException:
            await answer.close()
            raise
        return answer

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        """All events in order; a list is empty where SILENCE_SECONDS passed without one.

        Raises PythiaError for what ends the sweep before its end.
        """
        if self._first:
            yield self._first
        while (batch := await self._next()) is not None:
            yield batch

    async def close(self) -> None:
        """End the sweep, if it has not ended; harmless when repeated."""
        if self._coming is not None and not self._coming.done():
            self._coming.cancel()
            await asyncio.wait((self._coming,))
        await self._events.aclose()

    async def _next(self) -> list[Event] | None:
        """What is there, or the next event and what is there with it; None at the end."""
        batch: list[Event] = []
        weight = 0
        while weight < BATCH_ROWS and await self._arrives(0 if batch else SILENCE_SECONDS):
            try:
                event = await self._take()
            except PythiaError as error:
                if not batch:
                    raise
                self._failure = error  # to be raised when these were told
                return batch
            if event is None:
                return batch or None
            batch.append(event)
            weight += _weight(event)
        return batch

    async def _arrives(self, seconds: float) -> bool:
        """Whether there is an event, at once or within some seconds."""
        if self._failure is not None:
            return True
        if self._coming is None:
            self._coming = asyncio.ensure_future(anext(self._events, None))
        await asyncio.sleep(0)  # one that waits already has come by then
        if not self._coming.done() and seconds:
            await asyncio.wait((self._coming,), timeout=seconds)
        return self._coming.done()

    async def _take(self) -> Event | None:
        """What has arrived; raises what ends the sweep."""
        if self._failure is not None:
            raise self._failure
        assert self._coming is not None  # as ``_arrives`` said
        coming, self._coming = self._coming, None
        event = await coming
        if isinstance(event, Checkpoint):
            self._check_open()
        return event


def _weight(event: Event) -> int:
    """In rows without tokens."""
    tokens = 0
    if isinstance(event, Row):
        tokens = len(event.token_ids or ()) if event.run is None else BATCH_TOKENS
    return 1 + tokens * BATCH_ROWS // BATCH_TOKENS


def _caller(settings: Settings) -> str | None:
    """The name of the key that asks, where there are keys."""
    call = current_call()
    return call.caller if settings.has_keys and call is not None else None
