"""Long work beside an event loop, for others to have their turn: in pieces, or in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import Limits, check_ids, check_text

_In = TypeVar("_In")
_Out = TypeVar("_Out")

PIECE_SECONDS = 0.005
# Texts from here on are tokenised off the event loop: so many characters take some milliseconds.
LONG_TEXT = 4096
TEXT_THREADS = 2  # which bounds the memory of texts being tokenised: 350 bytes a character
CALL_CHARS = 256  # what a text costs besides its characters, in characters


class Turns:
    """For one piece of long work; whoever does it asks often."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def take(self) -> None:
        """Let the event loop turn if it was held for PIECE_SECONDS."""
        if time.perf_counter() - self._began > PIECE_SECONDS:
            await asyncio.sleep(0)
            self._began = time.perf_counter()


async def freed(values: list[Any]) -> None:
    """Empty a list of what is held nowhere else; all at once would take as long as to make it."""
    turns = Turns()
    while values:
        values.pop()
        await turns.take()


class Texts:
    """Long texts are worked on in threads, a few at a time. Close it."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits) -> None:
        self._tokenizer, self._limits = tokenizer, limits
        self._threads = ThreadPoolExecutor(TEXT_THREADS, "pythia-text")
        self._chars_in_turn = 0

    def close(self) -> None:
        """Begin no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def encode(self, prompt: str | Sequence[int], field: str = "prompt") -> tuple[int, ...]:
        """Token ids of a prompt, which is ``field`` of a request.

        Raises InvalidRequest on lone surrogates, and on texts that are too long to look at. The
        event loop turns at least once in LONG_TEXT characters, however many prompts there are.
        """
        await self._take_turn(len(prompt) if isinstance(prompt, str) else 0)
        if not isinstance(prompt, str):
            return tuple(prompt)
        check_text(field, len(prompt), self._limits)
        if len(prompt) < LONG_TEXT:
            return tuple(self._tokenizer.encode(prompt))
        return tuple(await self._on_text_thread(self._tokenizer.encode, prompt))

    async def decode(self, ids: Sequence[int], field: str) -> str:
        """The text of token ids; raises InvalidRequest, naming ``field``, on ids without token."""
        check_text(field, len(ids), self._limits, "ids")
        if len(ids) < LONG_TEXT:
            check_ids(field, ids, self._limits)
            return self._tokenizer.decode(ids)
        await self._on_text_thread(partial(check_ids, field, limits=self._limits), ids)
        return await self._on_text_thread(self._tokenizer.decode, ids)

    async def starts(self, text: str) -> list[int]:
        """Where each token of a text that ``encode`` took begins, in characters of the text."""
        if len(text) < LONG_TEXT:
            return self._tokenizer.starts(text)
        return await self._on_text_thread(self._tokenizer.starts, text)

    async def _on_text_thread(self, function: Callable[[_In], _Out], value: _In) -> _Out:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, value)

    async def _take_turn(self, chars: int) -> None:
        """Let others run when enough was done since somebody last did."""
        self._chars_in_turn += CALL_CHARS + min(chars, LONG_TEXT)
        if self._chars_in_turn > LONG_TEXT:
            self._chars_in_turn = 0
            await asyncio.sleep(0)
