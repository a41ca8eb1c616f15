"""Server-sent events as the HTML standard has them, from the bytes of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_END_OF_LINE = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventReader:
    """Data of events, whatever pieces their bytes come in; comments and other fields are left out.

    Lines end where the standard says and nowhere else: U+2028, U+0085 and the like are text.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of an unfinished one
        self._after_cr = False  # an LF belongs to the line before it
        self._is_first = True
        self._data: list[bytes] = []  # lines of an unfinished event

    def read(self, piece: bytes) -> Iterator[bytes]:
        """The data of the events that ``piece`` completes; an event without data is none."""
        for line in self._lines(piece):
            if not line:
                if self._data:
                    yield b"\n".join(self._data)
                    self._data = []
                continue
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))

    def _lines(self, piece: bytes) -> Iterable[bytes]:
        if not piece:
            return  # it says nothing of what the last one ended with
        if self._after_cr:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        *ends, rest = _END_OF_LINE.split(piece)
        for end in ends:
            yield self._whole(end)
        self._after_cr = not rest and piece.endswith(b"\r")
        if rest:
            self._line.append(rest)

    def _whole(self, end: bytes) -> bytes:
        line = b"".join([*self._line, end])
        self._line.clear()
        if self._is_first:
            self._is_first, line = False, line.removeprefix(_BOM)
        return line
