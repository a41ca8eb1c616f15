"""Drafted tokens: further rows of a step, which are right or leave nothing behind.

A draft is written behind the known tokens of its sequence and computed with the last of them. A row
has the bits that a step of its own would have, and its token is chosen as that step would choose
it, so those up to the first that is not what was drafted are the answer's. The keys and values of
the others lie behind what is computed: nothing reads them before they are written again.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from pythia_bento.engine.drafts import Drafts
from pythia_bento.engine.executor import Chunk

# Rows of a step with drafts: further ones cost more than they bring (docs/serving.md).
MOST_ROWS = 8


class Speculation:
    """Drafts for the steps of one engine, and counts of them."""

    def __init__(self, most_tokens: int) -> None:
        """A step has no more than ``most_tokens``."""
        self._most_rows = min(MOST_ROWS, most_tokens)
        self.drafts = self.drafted = self.accepted = 0  # the last two are tokens

    def draft(self, chunks: Seq[Chunk]) -> None:
        """Add drafts to the chunks of a step, as far as there is room for some of each."""
        left = self._most_rows - sum([chunk.count for chunk in chunks])
        if left < len(chunks):
            return
        for place, chunk in enumerate(chunks):
            if _may_draft(chunk):
                left -= _draft(chunk, left // (len(chunks) - place))

    def judge(self, chunk: Chunk, chosen: int) -> None:
        """So many tokens were chosen in the rows of a chunk with a draft."""
        drafts, accepted = chunk.sequence.drafts, max(chosen - 1, 0)
        assert drafts is not None  # of whom the draft is
        drafts.judge(chunk.drafted, accepted)
        self.drafts += 1
        self.drafted += chunk.drafted
        self.accepted += accepted


def _may_draft(chunk: Chunk) -> bool:
    """Whether it is a decode step whose next rows can be chosen before the host saw its token.

    Not where a grammar makes a mask of each token, or where the inside is shown or changed.
    """
    sequence = chunk.sequence
    is_step = chunk.count == 1 and chunk.samples and sequence.num_tokens > sequence.num_prompt
    return is_step and not sequence.is_guided and sequence.taps is None


def _draft(chunk: Chunk, most: int) -> int:
    """How many tokens were added: never so many that the answer could be longer than is wanted."""
    sequence = chunk.sequence
    if sequence.drafts is None:
        sequence.drafts = Drafts()
    known = sequence.num_tokens
    room = len(sequence.blocks) * sequence.block_size - known
    most = min(most, room, sequence.num_wanted - 1)
    drafted = sequence.drafts.next(sequence.token_ids[:known], most)
    sequence.token_ids[known : known + len(drafted)] = drafted
    chunk.count += len(drafted)
    chunk.drafted = len(drafted)
    return len(drafted)
