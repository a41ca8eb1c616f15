"""Long work in an event loop, in pieces: between them others have their turn."""

from __future__ import annotations

import asyncio
import time

PIECE_SECONDS = 0.005


class Turns:
    """For one piece of long work; whoever does it asks often."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def take(self) -> None:
        """Let the event loop turn if it was held for PIECE_SECONDS."""
        if time.perf_counter() - self._began > PIECE_SECONDS:
            await asyncio.sleep(0)
            self._began = time.perf_counter()
