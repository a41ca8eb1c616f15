"""Bodies of JSON that are read in pieces: parsing 8 MiB at once would hold the event loop for long.

The parser takes a second for three million empty lists and keeps the interpreter for itself. So the
lists among the fields of a large body are found first, and parsed some entries at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pythia_bento.engine.validate import Limits
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.parsing import invalid_json, loads
from pythia_bento.protocol.sampling import is_ids
from pythia_bento.runtime.turns import Turns

PIECE = 2**15  # bytes of a list's entries that are
LOOK = 2**12  # bytes that are looked at at once
MAX_BRACKETS = 2**8  # of these, which take some microseconds each
BYTES_OF_A_CHARACTER = 12  # at most, in JSON: two escapes
MAX_FIELDS = 256  # of a body; one that has more has unknown ones
MAX_PARTS = 2**14  # strings, lists and objects of an entry, or of all that is no list
PARTS_OF_AN_ITEM = 16  # at most, of a request to score

_BACKSLASH = ord("\\")
_BRACKET = re.compile(rb"[\[\]{}]")
_OBJECT = re.compile(rb"[ \t\r\n]*\{")


async def read_large(body: bytes, limits: Limits) -> Any:
    """A body in pieces. What is far beyond any limit is refused without being parsed.

    Raises InvalidRequest. Lists of numbers in a list among the fields are tuples.
    """
    if not _OBJECT.match(body):
        raise InvalidRequest("the body must be a JSON object")
    scan = _Scan(body, limits)
    await scan.run()
    data = _loaded(scan.head())
    for name, value in data.items():
        if isinstance(value, list):  # the place of a list
            data[name] = await _entries(body, scan.lists[value[0]].pieces)
    return data


@dataclass
class _List:
    """A list among the body's fields: where it begins and ends, without its brackets."""

    start: int
    end: int = 0
    pieces: list[tuple[int, int]] = field(default_factory=list)


class _Scan:
    """Finds lists, and where they may be cut: strings, brackets and depths, and nothing more."""

    def __init__(self, body: bytes, limits: Limits) -> None:
        self.lists: list[_List] = []
        self._body = body
        self._end = len(body)  # of what is looked at
        self._turns = Turns()
        self._depth = 0
        self._list: _List | None = None  # the one that we are in
        self._cut = 0  # where its next piece begins
        self._fields = 1
        self._numbers = 0  # commas since the last string or bracket
        self._entries = 0  # commas between the entries of the list
        self._parts = self._parts_of_piece = self._parts_of_head = 0
        self._max_length = limits.max_text_chars
        self._max_parts = max(2**17, PARTS_OF_AN_ITEM * limits.max_sequences)

    async def run(self) -> None:
        """Look at the whole body; raises InvalidRequest."""
        place = 0
        while place < self._end:
            quote = self._body.find(b'"', place)
            await self._between(place, quote if quote >= 0 else self._end)
            if quote < 0 or quote >= self._end:
                return
            self._part()
            place = await self._after_string(quote)

    def head(self) -> bytes:
        """The body with ``[number]`` for each list."""
        parts, place = [], 0
        for number, found in enumerate(self.lists):
            parts += [self._body[place : found.start], b"%d" % number]
            place = found.end
        parts.append(self._body[place : self._end])
        is_cut = self._end < len(self._body)
        return b"".join(parts) + (b', "more than %d fields": 0}' % MAX_FIELDS if is_cut else b"")

    async def _after_string(self, quote: int) -> int:
        place = quote + 1
        while True:
            end = self._body.find(b'"', place)
            if end < 0:
                raise invalid_json("EOF while parsing a string")
            self._check_text(end - quote)
            if not self._is_escaped(place, end):
                return end + 1
            place = end + 1  # this one is escaped
            await self._turns.take()

    def _is_escaped(self, start: int, quote: int) -> bool:
        """Whether an odd number of backslashes stands before a quote, from ``start`` on."""
        if self._body[quote - 1] != _BACKSLASH:  # and no text of megabytes is copied
            return False
        inside = self._body[start:quote]
        return (len(inside) - len(inside.rstrip(b"\\"))) % 2 == 1

    def _check_text(self, size: int) -> None:
        if size > BYTES_OF_A_CHARACTER * self._max_length:
            raise InvalidRequest(f"a text has more than {self._max_length} characters")

    async def _between(self, start: int, end: int) -> None:
        """What is between two strings."""
        for place in range(start, end, LOOK):
            last = place
            stop = min(place + LOOK, end)
            for number, bracket in enumerate(_BRACKET.finditer(self._body, place, stop), 1):
                self._commas(last, bracket.start())
                self._bracket(bracket[0], bracket.start())
                last = bracket.end()
                if number % MAX_BRACKETS == 0:
                    await self._turns.take()
            self._commas(last, stop)
            await self._turns.take()
            if place >= self._end:
                return

    def _commas(self, start: int, end: int) -> None:
        count = self._body.count(b",", start, end) if end > start else 0
        if count == 0:
            return
        self._numbers += count
        if self._depth == 1:
            self._count_fields(start, end, count)
        elif self._depth == 2 and self._list is not None:
            self._entries += count
            self._cut_pieces(start, end)
        if max(self._numbers, self._entries) >= self._max_length:
            raise InvalidRequest(f"a list has more than {self._max_length} entries")

    def _count_fields(self, start: int, end: int, count: int) -> None:
        self._fields += count
        if self._fields > MAX_FIELDS:  # the rest need not be looked at
            self._end = self._body.rfind(b",", start, end)

    def _cut_pieces(self, start: int, end: int) -> None:
        while (comma := self._body.find(b",", max(start, self._cut + PIECE), end)) >= 0:
            self._add_piece(comma)

    def _add_piece(self, end: int) -> None:
        assert self._list is not None
        self._list.pieces.append((self._cut, end))
        self._cut, self._parts_of_piece = end + 1, 0

    def _bracket(self, bracket: bytes, place: int) -> None:
        self._numbers = 0
        if bracket in b"[{":
            self._part()
            self._depth += 1
            if self._depth == 2 and bracket == b"[":
                self._list, self._cut, self._entries = _List(place + 1), place + 1, 0
            return
        if self._depth == 2 and self._list is not None:
            self._add_piece(place)
            self._list.end = place
            self.lists.append(self._list)
            self._list = None
        self._depth -= 1

    def _part(self) -> None:
        self._numbers = 0
        self._parts += 1
        if self._list is None:
            self._parts_of_head += 1
        else:
            self._parts_of_piece += 1
        most = max(self._parts_of_head, self._parts_of_piece)
        if most > MAX_PARTS or self._parts > self._max_parts:
            raise InvalidRequest("the body has too many strings, lists and objects")


async def _entries(body: bytes, pieces: list[tuple[int, int]]) -> list[Any]:
    turns, entries = Turns(), []
    for start, end in pieces:
        part = _loaded(b"[%b]" % body[start:end])
        if not part and len(pieces) > 1:  # a comma with nothing before it, or behind it
            raise invalid_json("expected value")
        entries += [tuple(entry) if is_ids(entry) and entry else entry for entry in part]
        await turns.take()
    return entries


def _loaded(json: bytes) -> Any:
    try:
        return loads(json)
    except InvalidRequest as error:  # whose place is of the piece
        raise InvalidRequest(error.message.partition(" at line ")[0]) from None
