"""Answers of JSON that are written in pieces, so that large ones do not hold the event loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pythia_bento.runtime.turns import Turns

PIECE_BYTES = 2**16


class Pieces(Response):
    """JSON in pieces that are sent one by one, and then let go; nobody puts 100 MB together."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(media_type="application/json")
        self.headers["content-length"] = str(sum(map(len, pieces)))
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all pieces."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        for piece in _drained(self._pieces):
            more = bool(self._pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})


async def json_in_pieces(
    head: Mapping[str, Any], at_once: int, **lists: Iterable[Any] | None
) -> Pieces:
    """An object of ``head`` and, after it, ``lists``, some entries of which are written at once."""
    turns, joiner = Turns(), Joiner()
    joiner.add(orjson.dumps(head)[:-1])
    for name, entries in lists.items():
        joiner.add(b',"%b":' % name.encode())
        if entries is None:
            joiner.add(b"null")
            continue
        separator, left = b"[", _drained(entries)
        while piece := list(islice(left, at_once)):
            joiner.add(separator + orjson.dumps(piece)[1:-1])
            separator = b","
            await turns.take()
        joiner.add(b"[]" if separator == b"[" else b"]")
    joiner.add(b"}")
    return Pieces(joiner.pieces())


class Joiner:
    """Joins what is small to pieces of some size."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._last = bytearray()

    def add(self, part: bytes) -> None:
        """Put ``part`` behind what there is."""
        self._last += part
        if len(self._last) > PIECE_BYTES:
            self._pieces.append(bytes(self._last))
            self._last.clear()

    def pieces(self) -> list[bytes]:
        """All that was added."""
        return [*self._pieces, bytes(self._last)]


def _drained(entries: Iterable[Any]) -> Iterator[Any]:
    """Entries of a list are let go one by one: to free them all takes as long as to make them."""
    if not isinstance(entries, list):
        yield from entries
        return
    entries.reverse()
    while entries:
        yield entries.pop()
