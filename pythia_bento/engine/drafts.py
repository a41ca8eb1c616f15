"""What a sequence may go on with, by its own text, and how much of that is worth a try."""

from __future__ import annotations

import numpy as np

from pythia_bento.engine.ngrams import NgramIndex

FIRST = 3  # tokens of a first draft, and of one after a failure
MOST = 7
MOST_PAUSE = 16  # steps without a draft after many failures
AT_ONCE = 256  # tokens that a step adds to the index: none waits for all of a long prompt


class Drafts:
    """Of one sequence: longer ones while they are right, none for a while where they are not."""

    __slots__ = ("_index", "_length", "_pause", "_wait")

    def __init__(self) -> None:
        self._index = NgramIndex()
        self._length = FIRST
        self._wait = 0  # steps until the next try
        self._pause = 1  # steps to wait after the next failure

    def next(self, text: np.ndarray, most: int) -> list[int]:
        """Up to ``most`` tokens behind ``text``, often none. To be called once a step.

        ``text``, integers [T], begins with what it was in the last call.
        """
        if self._wait:
            self._wait -= 1
            return []
        known = len(self._index)
        self._index.extend(text[known : known + AT_ONCE].tolist())
        if len(self._index) < len(text) or most < 1:
            return []
        return self._index.draft(min(most, self._length))

    def judge(self, drafted: int, accepted: int) -> None:
        """So many of the last draft were what was chosen."""
        if accepted:
            self._length = min(2 * drafted, MOST) if accepted == drafted else accepted + 1
            self._pause = 1
        else:
            self._length, self._wait = FIRST, self._pause
            self._pause = min(2 * self._pause, MOST_PAUSE)
