"""Coroutines for code that has no event loop, or has one that must not wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, TypeVar

from pythia_bento.errors import EngineUnavailable

_Result = TypeVar("_Result")


class Loop:
    """An event loop on a thread of its own. Close it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Its result; whatever ends the wait, as Ctrl-C does, ends the coroutine too.

        Raises EngineUnavailable once the loop is closed.
        """
        if self._loop.is_closed():
            coroutine.close()
            raise EngineUnavailable("the model was closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def iterate(self, generator: AsyncGenerator[_Result, None]) -> Iterator[_Result]:
        """What it yields; closing the iterator closes it."""
        try:
            while True:
                try:
                    yield self.run(_next(generator))
                except StopAsyncIteration:
                    return
        finally:
            if not self._loop.is_closed():
                self.run(generator.aclose())

    def close(self) -> None:
        """Harmless when repeated; nothing may run any more."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(generator: AsyncGenerator[_Result, None]) -> _Result:
    return await generator.__anext__()
