"""What followed the last tokens of a text when they stood in it before."""

from __future__ import annotations

from collections.abc import Sequence

LEAST, MOST = 3, 5  # tokens of what is looked for: of the longest that is found


class NgramIndex:
    """Of one text that grows; a token costs a few look-ups, however long the text is."""

    __slots__ = ("_ends", "_indexed", "_tokens")

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._indexed = 0  # ends up to this one are known
        # Where the text went on after an n-gram when it came last.
        self._ends: dict[tuple[int, ...], int] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """The text goes on with these."""
        known, ends = self._tokens, self._ends
        known += tokens
        # The last n-grams are left out: nothing follows them yet.
        for end in range(max(self._indexed + 1, LEAST), len(known)):
            for length in range(LEAST, min(MOST, end) + 1):
                ends[tuple(known[end - length : end])] = end
        self._indexed = max(self._indexed, len(known) - 1)

    def draft(self, most: int) -> list[int]:
        """Up to ``most`` tokens that may come next; none where the last ones are new.

        They are what followed the longest of the last n-grams that came before, where it came last.
        Where that reaches the end of the text it goes on with itself, as text that repeats does.
        """
        tokens = self._tokens
        for length in range(min(MOST, len(tokens)), LEAST - 1, -1):
            if (start := self._ends.get(tuple(tokens[-length:]))) is not None:
                period = len(tokens) - start
                return [tokens[start + place % period] for place in range(most)]
        return []
