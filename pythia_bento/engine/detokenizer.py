"""Incremental detokenisation of one sequence: text as soon as it is certain, and stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

from pythia_bento.engine.tokenizer import Tokenizer

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Turns tokens into text deltas whose concatenation is the plain decoding of the tokens.

    Half characters wait for their other half, and text that may be the beginning of a stop string
    waits until it is not. Each stop string has a Knuth-Morris-Pratt matcher, so a token costs its
    own length times the number of stop strings. The first stop string to be complete wins, the
    longest of several that end together; ``include_stop`` leaves it in the text. Special tokens
    have text unless they are skipped.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        skip_special_tokens: bool = True,
        include_stop: bool = False,
    ) -> None:
        self.stopped_by: str | None = None
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._include_stop = include_stop
        self._whole_texts = tokenizer.whole_texts  # the decoder is only for the others
        self._decoder = _Utf8Decoder("replace")
        self._is_partial = False  # whether the decoder waits for the rest of a character
        # Longest first: of two stop strings that end together the first found is reported.
        self._matchers = [_Matcher(s) for s in sorted(stop, key=len, reverse=True)]
        self._held = ""

    def push(self, token_id: int, *, may_stop: bool = True) -> str:
        """Text that became certain; sets ``stopped_by`` when a stop string is complete.

        A stop string that ends in a token pushed with ``may_stop=False`` is ordinary text.
        """
        text = self._whole_texts.get(token_id)
        if text is None or self._is_partial:
            text = self._decode([token_id])
        return self._release(text, may_stop) if self._matchers else text

    def push_all(self, token_ids: Sequence[int]) -> str | None:
        """What pushing them one by one brings, at a fraction of its price.

        None where a stop string may be complete on the way: then nothing has changed, and they
        have to be pushed one by one to know where.
        """
        before = self._decoder.getstate()
        text = self._decode_all(token_ids)
        if not self._matchers:
            return text
        buffer = self._held + text
        if any(matcher.pattern in buffer for matcher in self._matchers):
            self._decoder.setstate(before)
            self._is_partial = bool(before[0])
            return None
        for matcher in self._matchers:
            matcher.read(text, buffer)
        return self._certain(buffer)

    def flush(self) -> str:
        """The rest, when no more tokens come: half a character becomes U+FFFD."""
        rest = self._release(self._decoder.decode(b"", final=True), may_stop=True)
        held, self._held = self._held, ""
        return rest + held if self.stopped_by is None else rest

    def _decode_all(self, token_ids: Sequence[int]) -> str:
        if not self._is_partial:
            with suppress(KeyError):  # rather than asking for each
                return "".join([self._whole_texts[id] for id in token_ids])
        return self._decode(token_ids)

    def _decode(self, token_ids: Sequence[int]) -> str:
        token_bytes, skipped = self._tokenizer.token_bytes, self._skipped
        data = b"".join([token_bytes(id) for id in token_ids if id not in skipped])
        text = self._decoder.decode(data)
        self._is_partial = bool(self._decoder.getstate()[0])
        return text

    def _release(self, text: str, may_stop: bool) -> str:
        buffer = self._held + text
        for end in range(len(self._held) + 1, len(buffer) + 1):
            for matcher in self._matchers:
                if matcher.advance(buffer[end - 1]) and may_stop:
                    self.stopped_by, self._held = matcher.pattern, ""
                    return buffer[: end if self._include_stop else end - len(matcher.pattern)]
        return self._certain(buffer)

    def _certain(self, buffer: str) -> str:
        """Hold back the end that may begin a stop string."""
        certain = len(buffer) - max((matcher.matched for matcher in self._matchers), default=0)
        self._held = buffer[certain:]
        return buffer[:certain]


class _Matcher:
    """How much of ``pattern`` the text so far ends with (Knuth-Morris-Pratt)."""

    __slots__ = ("_fallback", "matched", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.matched = 0  # always a proper prefix: a whole match falls back at once
        self._fallback = _fallback_table(pattern)

    def advance(self, char: str) -> bool:
        """Read one character; true when it completes the pattern."""
        pattern, matched = self.pattern, self.matched
        while matched and pattern[matched] != char:
            matched = self._fallback[matched]
        matched += pattern[matched] == char
        whole = matched == len(pattern)
        self.matched = self._fallback[matched] if whole else matched
        return whole

    def read(self, text: str, buffer: str) -> None:
        """Read ``text``, which ends ``buffer``; the pattern is nowhere in the buffer."""
        longest = len(self.pattern) - 1
        if len(text) > longest:  # what a match may begin in is all that counts
            self.matched, text = 0, buffer[len(buffer) - longest :]
        for char in text:
            self.advance(char)


@lru_cache(maxsize=256)
def _fallback_table(pattern: str) -> tuple[int, ...]:
    """Entry k: the longest proper prefix of ``pattern`` that ``pattern[:k]`` ends with."""
    table = [0, 0]
    for end in range(1, len(pattern)):
        k = table[end]
        while k and pattern[k] != pattern[end]:
            k = table[k]
        table.append(k + (pattern[k] == pattern[end]))
    return tuple(table)
