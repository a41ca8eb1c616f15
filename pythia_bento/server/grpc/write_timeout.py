"""A limit for clients that answer pings and do not read: HTTP/2 lets each hold its stream back."""

from __future__ import annotations

import asyncio

from pythia_bento.errors import RequestTimeout


class WriteTimeout:
    """Ends the task that made it when one of its writes takes too long.

    One timer for the whole stream, so that a message costs next to nothing. It looks twice in
    ``seconds`` and acts when it sees the same write three times, so within one and a half of them.
    """

    def __init__(self, seconds: float) -> None:
        self._pause = seconds / 2
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._writes = 0  # odd while one is under way
        self._seen, self._times = 0, 0
        self._has_passed = False
        self._timer = self._loop.call_later(self._pause, self._look)

    def __enter__(self) -> None:
        """A write begins."""
        self._writes += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """It has ended; raises RequestTimeout where this is why."""
        self._writes += 1
        if self._has_passed and kind is asyncio.CancelledError:
            raise RequestTimeout(
                f"the client did not read for {2 * self._pause:g} seconds"
            ) from None

    def close(self) -> None:
        """Nothing more is written."""
        self._timer.cancel()

    def _look(self) -> None:
        is_same = self._writes % 2 == 1 and self._writes == self._seen
        self._seen, self._times = self._writes, self._times + 1 if is_same else 0
        if self._times < 2:
            self._timer = self._loop.call_later(self._pause, self._look)
        elif self._task is not None:
            self._has_passed = True
            self._task.cancel()
