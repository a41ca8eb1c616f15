"""Calls that are open and ask for nothing: how long each may be, how many, and how they end.

A call begins with its head, and nothing makes its client send the message that follows; grpc would
wait for ever, before anybody looks at the call. A watcher of the server's health stays for ever by
right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pythia_bento.errors import EngineUnavailable, Overloaded, PythiaError, RequestTimeout

RETRY_SECONDS = 1.0

_T = TypeVar("_T")


class HeldCalls:
    """Calls of one kind, oldest first. For one event loop.

    Where there are too many the oldest ends, so that nobody who comes finds a closed door.
    """

    def __init__(self, what: str, most: int, seconds: float | None = None) -> None:
        """``what`` so many of them wait for at a time, and for how long at most."""
        self._what = what
        self.most = most
        self._seconds = seconds
        self._calls: dict[_Call, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._end: PythiaError | None = None

    async def hold(self, waited: Callable[[], Awaitable[_T]]) -> _T:
        """What comes of ``waited``, in the task of a call.

        Raises RequestTimeout when it takes too long, Overloaded when others came that are too many,
        and EngineUnavailable from ``close`` on.
        """
        if self._end is not None:
            raise self._end
        call = _Call()
        self._enter(call)
        try:
            return await waited()
        except asyncio.CancelledError:
            if call.error is None:
                raise
            raise call.error from None
        finally:
            self._calls.pop(call, None)

    def close(self) -> None:
        """End all that are held, and all that come."""
        self._end = EngineUnavailable("the server is shutting down")
        for call in list(self._calls):
            self._give_up(call, self._end)

    def _enter(self, call: _Call) -> None:
        if len(self._calls) >= self.most:
            message = f"{self.most} calls wait for {self._what}, and others came; try again later"
            self._give_up(next(iter(self._calls)), Overloaded(message, retry_after=RETRY_SECONDS))
        self._calls[call] = None
        if self._timer is None:
            self._look_at(call)

    def _look(self) -> None:
        """One timer for all, so that a call costs next to nothing."""
        self._timer = None
        for call in list(self._calls):
            if call.began + (self._seconds or 0) > call.loop.time():
                return self._look_at(call)
            message = f"{self._what} did not arrive within {self._seconds:g} seconds"
            self._give_up(call, RequestTimeout(message))

    def _look_at(self, oldest: _Call) -> None:
        if self._seconds is not None:
            self._timer = oldest.loop.call_at(oldest.began + self._seconds, self._look)

    def _give_up(self, call: _Call, error: PythiaError) -> None:
        del self._calls[call]
        call.error = error
        call.task.cancel()


class _Call:
    __slots__ = ("began", "error", "loop", "task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.loop = task.get_loop()
        self.began = self.loop.time()
        self.error: PythiaError | None = None
