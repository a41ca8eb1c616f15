"""Where tokens begin in the text that they make."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from itertools import repeat

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class TokenOffsets:
    """Counts characters as a decoder makes them of the tokens' bytes, one token after another.

    A token that ends or continues a character begins where that character begins. One that does
    neither begins after the U+FFFD that the unfinished character before it becomes.
    """

    def __init__(self, start: int = 0) -> None:
        self._next = start  # of the next character that the decoder makes
        self._decoder = _Utf8Decoder("replace")
        self._unfinished = b""  # what the decoder has of it already

    def push(self, data: bytes) -> int:
        """Where a token with these bytes begins."""
        start = self._next
        if self._unfinished and data:  # its first byte belongs to the last of these characters
            start += len((self._unfinished + data[:1]).decode(errors="replace")) - 1
        self._next += len(self._decoder.decode(data))
        self._unfinished = self._decoder.getstate()[0]
        return start

    def push_whole(self, data: bytes, count: int) -> int:
        """``push`` of bytes that are ``count`` whole characters, which need not be decoded."""
        if self._unfinished:
            return self.push(data)
        start = self._next
        self._next += count
        return start


def token_starts(pieces: Iterable[bytes], counts: Iterable[int] = repeat(-1)) -> list[int]:
    """Where each of some tokens begins; ``counts`` are their characters where these are whole."""
    offsets = TokenOffsets()
    return [
        offsets.push(piece) if count < 0 else offsets.push_whole(piece, count)
        for piece, count in zip(pieces, counts, strict=False)
    ]
