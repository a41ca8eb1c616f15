"""What each caller may keep of the batch and of the KV blocks while others wait.

A caller that is alone has all of it. Where several have something to do, each has an equal share:
one above its share gives way to one below, its youngest sequence first, and its oldest never. Those
that gave way come back as room allows; what they have generated is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence as Seq

from pythia_bento.engine.sequence import Sequence


class Shares:
    """A look at what runs, by age, oldest first; stale as soon as that changes."""

    def __init__(
        self, running: Seq[Sequence], waiting: Iterable[str], max_seqs: int, num_blocks: int
    ) -> None:
        """``waiting`` are the callers of sequences that wait."""
        self._running = running
        self._sequences: Counter[str] = Counter()
        self._blocks: Counter[str] = Counter()
        for sequence in running:
            self._sequences[sequence.request.caller] += 1
            self._blocks[sequence.request.caller] += len(sequence.blocks)
        self.callers = self._sequences.keys() | set(waiting)
        self._most_sequences = max(max_seqs // max(len(self.callers), 1), 1)
        self._most_blocks = num_blocks // max(len(self.callers), 1)

    def has_room(self, sequence: Sequence, block_size: int) -> bool:
        """Whether it fits into its caller's share; the only one of its caller always does."""
        caller = sequence.request.caller
        blocks = self._blocks[caller] - (-sequence.num_tokens // block_size)
        return not self._sequences[caller] or (
            self._sequences[caller] < self._most_sequences and blocks <= self._most_blocks
        )

    def above(self) -> Sequence | None:
        """The youngest of the callers above their share, of the one with the most blocks."""
        return self._youngest(
            caller
            for caller, count in self._sequences.items()
            if count > self._most_sequences or self._blocks[caller] > self._most_blocks
        )

    def youngest(self) -> Sequence:
        """Who gives way when blocks run out: of the caller with the most, perhaps the only one."""
        return self._youngest(self._sequences) or self._running[-1]

    def _youngest(self, callers: Iterable[str]) -> Sequence | None:
        several = [caller for caller in callers if self._sequences[caller] > 1]
        if not several:
            return None
        most = max(several, key=self._blocks.__getitem__)
        _, *others = [s for s in self._running if s.request.caller == most]
        # What is computed ends as soon as the device tells, and gives more back by that.
        return next((s for s in reversed(others) if s.num_computed < s.num_tokens), None)
