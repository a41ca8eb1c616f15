"""Policy: which tokens of which sequences the next step computes."""

from __future__ import annotations

import time
from bisect import insort

from pythia_bento.engine.block_pool import BlockPool
from pythia_bento.engine.executor import Chunk
from pythia_bento.engine.fair_queue import FairQueue
from pythia_bento.engine.sequence import Sequence


class Scheduler:
    """Continuous batching under a budget of sequences and tokens; ``FairQueue`` says who is next.

    Every running sequence that decodes gets its token first, so a long prompt never stalls the
    others; prompts share what is left of the budget, in pieces. When the blocks run out, the
    youngest running sequence gives its own back and is computed again later. The oldest sequence
    is therefore never preempted, which is why nobody starves.
    """

    def __init__(
        self,
        pool: BlockPool,
        block_size: int,
        max_seqs: int,
        max_tokens: int,
        lookahead: int = 1,
    ) -> None:
        self.pool = pool
        self.block_size = block_size
        self.max_seqs = max_seqs
        self.max_tokens = max_tokens
        self.lookahead = lookahead  # tokens a decoding sequence should have room for
        self.waiting = FairQueue()
        self.running: list[Sequence] = []  # by age, oldest first
        self.late: list[Sequence] = []  # their deadline passed before they began; to be ended
        self.num_preemptions = 0
        self.num_prefix_queries = 0  # prompt tokens looked up
        self.num_prefix_hits = 0  # prompt tokens found

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        sequence.status = "waiting"
        self.waiting.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, finished or not, and give its blocks back."""
        if sequence.status == "running":
            self.running.remove(sequence)
            self.pool.deallocate(sequence.release())
        elif sequence.status == "waiting":
            self.waiting.remove(sequence)
        if sequence.num_admissions and sequence.status != "finished":
            self.waiting.refund(sequence)
        sequence.status = "finished"

    def schedule(self) -> list[Chunk]:
        """The next step. Empty only when no sequence is waiting or running, or all were late."""
        chunks = self._decodes()
        budget = self.max_tokens - len(chunks)
        for sequence in self.running:
            if budget and sequence.num_tokens - sequence.num_computed > 1:
                chunks.append(self._prefill(sequence, budget))
                budget -= chunks[-1].count
        while budget and (admitted := self._admit()):
            chunks.append(self._prefill(admitted, budget))
            budget -= chunks[-1].count
        return chunks

    def advance(self, sequence: Sequence, count: int) -> None:
        """``count`` more tokens were computed; blocks that became full may now be shared."""
        sequence.num_computed += count
        if sequence.num_computed >= (sequence.num_published + 1) * self.block_size:
            full = sequence.num_computed // self.block_size
            names = sequence.block_names(full)
            for block in range(sequence.num_published, full):
                self.pool.publish(sequence.blocks[block], names[block])
            sequence.num_published = full

    def _decodes(self) -> list[Chunk]:
        chunks = []
        for sequence in tuple(self.running):  # preemption shortens the list from its end
            known = sequence.num_tokens
            if sequence.num_computed != known - 1:
                continue
            has_room = known + self.lookahead <= len(sequence.blocks) * self.block_size
            if has_room or self._grow(sequence):
                chunks.append(Chunk(sequence, known - 1, 1))
        return chunks

    def _grow(self, sequence: Sequence) -> bool:
        """Make room for the last known token; false when that cost the sequence its place."""
        if sequence.status != "running":
            return False
        if sequence.num_tokens > len(sequence.blocks) * self.block_size:
            while self.pool.num_free == 0:
                if self._preempt_youngest() is sequence:
                    return False
            sequence.hold(self.pool.allocate(1))
        self._look_ahead(sequence, sequence.num_tokens)
        return True

    def _look_ahead(self, sequence: Sequence, num_tokens: int) -> None:
        """Where blocks are plenty, one more, for steps that the runner makes unasked."""
        wanted = min(num_tokens + self.lookahead - 1, len(sequence.token_ids))
        if wanted > len(sequence.blocks) * self.block_size and self.pool.num_free > self.max_seqs:
            sequence.hold(self.pool.allocate(1))

    def _preempt_youngest(self) -> Sequence:
        sequence = self.running.pop()
        self.pool.deallocate(sequence.release())
        self.num_preemptions += 1
        self.add(sequence)
        return sequence

    def _prefill(self, sequence: Sequence, budget: int) -> Chunk:
        start = sequence.num_computed
        chunk = Chunk(sequence, start, min(budget, sequence.num_tokens - start))
        if chunk.samples and self.lookahead > 1:
            self._look_ahead(sequence, sequence.num_tokens + 1)
        return chunk

    def _admit(self) -> Sequence | None:
        """Move the next waiting sequence to the running ones if it fits."""
        if len(self.running) >= self.max_seqs or (sequence := self._next()) is None:
            return None
        cached = self._cached_blocks(sequence)
        missing = -(-sequence.num_tokens // self.block_size) - len(cached)
        # Each running sequence will soon want its next block: admitting into those would only
        # preempt the newcomer again.
        wanted = missing + self.pool.num_idle(cached) + len(self.running)
        if wanted > self.pool.num_free:
            return None
        self.waiting.admit(sequence)
        self._start(sequence, cached, missing)
        return sequence

    def _next(self) -> Sequence | None:
        """Whose turn it is, among those that can still be in time."""
        while (sequence := self.waiting.first()) and sequence.request.deadline <= time.monotonic():
            self.remove(sequence)
            self.late.append(sequence)
        return sequence

    def _cached_blocks(self, sequence: Sequence) -> list[int]:
        """Blocks of the prefix cache it may read; at least one token remains to be computed."""
        return self.pool.lookup(sequence.block_names(sequence.max_cached_tokens // self.block_size))

    def _start(self, sequence: Sequence, cached: list[int], missing: int) -> None:
        self.pool.share(cached)
        sequence.hold(cached)
        sequence.hold(self.pool.allocate(missing))
        sequence.num_computed = len(cached) * self.block_size
        sequence.num_published = len(cached)
        if sequence.num_admissions == 0:
            self.num_prefix_queries += sequence.max_cached_tokens
            self.num_prefix_hits += sequence.num_computed
            sequence.num_cached_tokens = sequence.num_computed
            sequence.started = time.monotonic()
        sequence.num_admissions += 1
        sequence.status = "running"
        insort(self.running, sequence, key=_age)


def _age(sequence: Sequence) -> tuple[int, int]:
    return sequence.order
