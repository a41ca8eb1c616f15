"""An event loop that turns: how often, and until something is so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def turning() -> AsyncIterator[Callable[[], int]]:
    """Counts the loop's turns while the block runs."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    try:
        yield lambda: turns
    finally:
        counting.cancel()


async def until(is_so: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for what must come, however busy the machine is."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it has not come"
        await asyncio.sleep(0.002)
