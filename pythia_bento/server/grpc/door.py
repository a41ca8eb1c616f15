"""Where calls come in, callers by turns: whoever sends thousands is in nobody else's way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable

from pythia_bento.errors import Overloaded
from pythia_bento.runtime.turns import RoundRobin, after_others

# Of the event loop, between two calls that come in: what has come of others is seen meanwhile.
TURNS_BETWEEN = 4
MOST_WAITING = 1024  # of one caller; each holds some 20 KB
RETRY_SECONDS = 1.0


class Door:
    """For one event loop."""

    def __init__(self) -> None:
        self._waiting: RoundRobin[asyncio.Future[None]] = RoundRobin()
        self._counts: Counter[Hashable] = Counter()  # of those, by caller
        self._is_turning = False

    async def enter(self, caller: Hashable) -> None:
        """At once where nobody came just now; raises Overloaded where too many of a caller wait."""
        loop = asyncio.get_running_loop()
        if self._is_turning:
            return await self._wait(caller, loop.create_future())
        self._is_turning = True
        after_others(loop, self._turn, TURNS_BETWEEN)

    async def _wait(self, caller: Hashable, turn: asyncio.Future[None]) -> None:
        if self._counts[caller] >= MOST_WAITING:
            message = f"{MOST_WAITING} calls of this caller wait to come in; try again later"
            raise Overloaded(message, retry_after=RETRY_SECONDS)
        self._waiting.add(caller, turn)
        self._counts[caller] += 1
        try:
            await turn
        finally:
            self._counts[caller] -= 1
            if not self._counts[caller]:
                del self._counts[caller]

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.take()
            if not turn.done():  # as it is where its call was cancelled
                turn.set_result(None)
                return after_others(loop, self._turn, TURNS_BETWEEN)
        self._is_turning = False
