"""Long work beside an event loop, for others to have their turn: in pieces, or in threads."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from pythia_bento.engine.tokenizer import LONG_TEXT, Tokenizer
from pythia_bento.engine.validate import Limits, check_ids, check_text
from pythia_bento.telemetry.calls import current_call

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Entry = TypeVar("_Entry")

PIECE_SECONDS = 0.002
# Of the event loop, between two pieces: a small request takes some to get on, and would have to
# wait for a piece in each. Where nobody wants them, they cost less than 1 % of a piece.
TURNS_BETWEEN = 4
TEXT_THREADS = 2  # which bounds the memory of texts being tokenised: 350 bytes a character
CALL_CHARS = 256  # what a text costs besides its characters, in characters


class RoundRobin(Generic[_Entry]):
    """A queue in which callers take turns and each one's entries keep their order.

    Whoever brings thousands delays others by one. For one thread at a time.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, deque[_Entry]] = OrderedDict()  # none is empty
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, caller: Hashable, entry: _Entry) -> None:
        """One more of a caller's; its turn comes after one entry of each other caller."""
        self._lines.setdefault(caller, deque()).append(entry)
        self._length += 1

    def take(self) -> _Entry:
        """The next one; raises KeyError where there is none."""
        caller, line = self._lines.popitem(last=False)
        entry = line.popleft()
        if line:
            self._lines[caller] = line
        self._length -= 1
        return entry


class Turns:
    """For one piece of long work; whoever does it asks often."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def take(self) -> None:
        """Let others run if the event loop was held for PIECE_SECONDS."""
        if time.perf_counter() - self._began > PIECE_SECONDS:
            await give_way()
            self._began = time.perf_counter()


async def give_way() -> None:
    """Between two pieces of long work: wait for the next piece's turn.

    However much long work there is, the event loop does one piece of it in TURNS_BETWEEN turns, and
    callers have pieces by turns.
    """
    call = current_call()
    await next_turn(call.caller if call else None)


def next_turn(caller: Hashable) -> asyncio.Future[None]:
    """``give_way`` for who is no coroutine: done when the turn of a piece of this caller's comes.

    Cancelled it takes nobody's turn.
    """
    loop = asyncio.get_running_loop()
    if (pieces := _pieces.get(loop)) is None:
        pieces = _pieces[loop] = _Pieces()
    return pieces.wait(caller)


class _Pieces:
    """Of all long work in one event loop: what waits for its turn."""

    def __init__(self) -> None:
        self._waiting: RoundRobin[asyncio.Future[None]] = RoundRobin()
        self._is_turning = False

    def wait(self, caller: Hashable) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.add(caller, turn)
        if not self._is_turning:
            self._is_turning = True
            after_others(loop, self._turn)
        return turn

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.take()
            if not turn.done():  # as it is where its task was cancelled
                turn.set_result(None)
                break
        self._is_turning = bool(self._waiting)
        if self._is_turning:
            after_others(loop, self._turn)


def after_others(
    loop: asyncio.AbstractEventLoop,
    piece: Callable[[asyncio.AbstractEventLoop], None],
    turns: int = TURNS_BETWEEN,
) -> None:
    """Call ``piece`` with ``loop`` when that has turned some times."""
    if turns:
        loop.call_soon(after_others, loop, piece, turns - 1)
    else:
        piece(loop)


_pieces: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pieces] = WeakKeyDictionary()


async def freed(values: list[Any]) -> None:
    """Empty a list of what is held nowhere else; all at once would take as long as to make it."""
    turns = Turns()
    while values:
        values.pop()
        await turns.take()


class TextThreads:
    """For long texts, a few at a time; close it. Short ones take turns on the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(TEXT_THREADS, "pythia-text")
        self._chars_in_turn = 0

    def close(self) -> None:
        """Begin no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[[_In], _Out], value: _In) -> _Out:
        """``function(value)`` on one of them."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, value)

    async def take_turn(self, chars: int) -> None:
        """Let others run when enough was done on the event loop since somebody last did."""
        self._chars_in_turn += CALL_CHARS + min(chars, LONG_TEXT)
        if self._chars_in_turn > LONG_TEXT:
            self._chars_in_turn = 0
            await give_way()


class Texts:
    """What a tokenizer makes of texts."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits, threads: TextThreads) -> None:
        self._tokenizer, self._limits, self._threads = tokenizer, limits, threads

    async def encode(self, prompt: str | Sequence[int], field: str = "prompt") -> tuple[int, ...]:
        """Token ids of a prompt, which is ``field`` of a request.

        Raises InvalidRequest on lone surrogates, and on texts that are too long to look at. The
        event loop turns at least once in LONG_TEXT characters, however many prompts there are.
        """
        await self._threads.take_turn(len(prompt) if isinstance(prompt, str) else 0)
        if not isinstance(prompt, str):
            return tuple(prompt)
        check_text(field, len(prompt), self._limits)
        if len(prompt) < LONG_TEXT:
            return tuple(self._tokenizer.encode(prompt))
        return tuple(await self._threads.run(self._tokenizer.encode, prompt))

    async def decode(self, ids: Sequence[int], field: str) -> str:
        """The text of token ids; raises InvalidRequest, naming ``field``, on ids without token."""
        check_text(field, len(ids), self._limits, "ids")
        if len(ids) < LONG_TEXT:
            check_ids(field, ids, self._limits)
            return self._tokenizer.decode(ids)
        await self._threads.run(partial(check_ids, field, limits=self._limits), ids)
        return await self._threads.run(self._tokenizer.decode, ids)

    async def starts(self, text: str) -> list[int]:
        """Where each token of a text that ``encode`` took begins, in characters of the text."""
        if len(text) < LONG_TEXT:
            return self._tokenizer.starts(text)
        return await self._threads.run(self._tokenizer.starts, text)
