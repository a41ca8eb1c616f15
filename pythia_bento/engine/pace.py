"""How much of prompts a step may have while several callers are about.

A newcomer's first token takes the rest of the step that is under way, and one more. Where a caller
is alone a step is filled: nobody else waits for it. Where others are about, or were a moment ago,
it has as many tokens as this device computes in ``STEP_SECONDS``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

STEP_SECONDS = 0.05
COMPANY_SECONDS = 10.0  # for which a caller is still about that has nothing to do
LEAST_TOKENS = 16  # of prompts in a step, however slow the device is


class Pace:
    """Knows when each caller was last seen and how fast steps are; for one thread."""

    def __init__(self, max_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``max_tokens`` is what a step may have in any case."""
        self._max_tokens = max_tokens
        self._clock = clock
        self._seen: dict[str, float] = {}  # by caller
        self._rate = 0.0  # tokens a second, of late; 0 before the first step

    def see(self, callers: Iterable[str]) -> None:
        """These have something to do."""
        now = self._clock()
        self._seen |= dict.fromkeys(callers, now)
        if len(self._seen) > 1:
            oldest = now - COMPANY_SECONDS
            self._seen = {caller: seen for caller, seen in self._seen.items() if seen >= oldest}

    @property
    def is_shared(self) -> bool:
        """Whether several callers are about."""
        return len(self._seen) > 1

    def observe(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long.

        A small step takes longer for a token than a large one. What follows from it is too little,
        so that the next ones are larger, until they take the time they may.
        """
        if tokens:  # none where a device is asked ahead of its answers
            rate = tokens / max(seconds, 1e-6)
            self._rate = (self._rate + rate) / 2 if self._rate else rate

    def prompt_tokens(self, decodes: int) -> int:
        """What a step may have of prompts beside so many other tokens."""
        most = self._max_tokens - decodes
        if not self.is_shared or not self._rate:
            return most
        return min(max(int(self._rate * STEP_SECONDS) - decodes, LEAST_TOKENS), most)
