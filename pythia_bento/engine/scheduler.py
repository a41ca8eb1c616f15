"""Policy: which tokens of which sequences the next step computes."""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Collection
from operator import attrgetter

from pythia_bento.engine.block_pool import BlockPool
from pythia_bento.engine.executor import Chunk
from pythia_bento.engine.fair_queue import Books, FairQueue, Pace
from pythia_bento.engine.sequence import Sequence
from pythia_bento.engine.shares import Shares
from pythia_bento.engine.tap_turns import TapTurns

# Sequences that end in one step because they are late: as many as cost no more than a step does.
MOST_LATE = 512


class Scheduler:
    """Continuous batching under a budget of sequences and tokens; ``FairQueue`` says who is next.

    Every running sequence that decodes gets its token first, so a long prompt never stalls the
    others; prompts share what is left of the budget, in pieces. When the blocks run out, the
    youngest running sequence of the caller that holds most gives its own back and is computed again
    later; the same happens where a caller is above its share and another below has to wait. The
    oldest sequence is never preempted, which is why nobody starves.
    """

    def __init__(
        self,
        pool: BlockPool,
        block_size: int,
        max_seqs: int,
        max_tokens: int,
        lookahead: int = 1,
        books: Books | None = None,
        most_tokens: int = 0,
    ) -> None:
        """``pool`` and ``books`` may be shared with other schedulers of the same device.

        See ``Pace`` for ``most_tokens``.
        """
        self.pool = pool
        self.block_size = block_size
        self.max_seqs = max_seqs
        self.lookahead = lookahead  # tokens a decoding sequence should have room for
        self.waiting = FairQueue(books)
        self.is_paused = False  # nothing more is begun
        self.is_patient = False
        """Nothing in the last step is in a hurry, and others may come: they would wait for two of
        them if another was queued behind it."""
        self.running: list[Sequence] = []  # by age, oldest first
        self.turns = TapTurns()
        self.late: list[Sequence] = []  # their deadline passed before they began; to be ended
        self._claimant: Sequence | None = None  # others gave way to it, so nobody overtakes it
        self.pace = Pace(max_tokens, self.waiting.books.company, most_tokens)
        self.num_preemptions = 0
        self.num_prefix_queries = 0  # prompt tokens looked up
        self.num_prefix_hits = 0  # prompt tokens found

    @property
    def callers(self) -> dict[str, int]:
        """Who has something to do, and the lowest priority of what runs and of who is next."""
        found = self.waiting.firsts
        for sequence in self.running:
            caller, priority = sequence.request.caller, sequence.request.priority
            found[caller] = min(found.get(caller, priority), priority)
        return found

    @property
    def newcomers(self) -> dict[str, int]:
        """The same of those of whom nothing runs."""
        found = self.waiting.firsts
        busy = {sequence.request.caller for sequence in self.running} if found else ()
        return {caller: priority for caller, priority in found.items() if caller not in busy}

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        sequence.status = "waiting"
        self.waiting.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, finished or not, and give its blocks back."""
        if sequence.status == "running":
            self._stop(sequence)
        elif sequence.status == "waiting":
            self.waiting.remove(sequence)
        if sequence.num_admissions and sequence.status != "finished":
            self.waiting.books.refund(sequence)
        sequence.status = "finished"
        if not self.waiting:
            self.pool.unclaim(self)

    def schedule(self) -> list[Chunk]:
        """The next step. Empty only when no sequence is waiting or running, or many were late."""
        chunks = self._chunks()
        return self.turns.of_one_kind(chunks) if self.turns.running else chunks

    def _chunks(self) -> list[Chunk]:
        """As much as the budget allows."""
        preemptions = self.num_preemptions
        self.pace.see(self.waiting.callers.union([s.request.caller for s in self.running]))
        chunks = self._decodes()
        is_shared = self.pace.is_shared
        self.is_patient = is_shared and min(self.callers.values(), default=0) > 0
        is_unhurried = not (chunks or self.turns.running or any(s.is_awaited for s in self.running))
        kind = {"is_patient": self.is_patient, "is_unhurried": is_unhurried}
        budget = self.pace.prompt_tokens(len(chunks), **kind)
        begun = [s for s in self.running if s.num_tokens - s.num_computed > 1]
        if is_shared and begun:
            # Nobody's first token waits for all of another's long prompt.
            newcomers = self._begin(budget // 2, {s.request.caller for s in begun})
            budget -= sum(chunk.count for chunk in newcomers)
            chunks += newcomers
        for sequence in begun:
            if budget and sequence.status == "running":
                chunks.append(self._prefill(sequence, budget))
                budget -= chunks[-1].count
        chunks += self._begin(budget)
        if self.num_preemptions == preemptions:
            return chunks
        # Some have given way to others in this step, and of those some have begun anew in it.
        latest = {chunk.sequence: chunk for chunk in chunks}
        return [chunk for chunk in latest.values() if chunk.sequence.status == "running"]

    def advance(self, sequence: Sequence, count: int) -> None:
        """``count`` more tokens were computed; blocks that became full may now be shared."""
        sequence.num_computed += count
        known, full = sequence.num_published, sequence.num_computed // self.block_size
        if full > known:
            self.pool.publish(sequence.blocks[known:full], sequence.block_names(full)[known:])
            sequence.num_published = full

    def _decodes(self) -> list[Chunk]:
        chunks = []
        for sequence in tuple(self.running):  # preemption shortens the list
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
                victim = self._shares().youngest()
                self._preempt(victim)
                if victim is sequence:
                    return False
            sequence.hold(self.pool.allocate(1))
        self._look_ahead(sequence, sequence.num_tokens)
        return True

    def _look_ahead(self, sequence: Sequence, num_tokens: int) -> None:
        """Where blocks are plenty, one more, for steps that the runner makes unasked."""
        wanted = min(num_tokens + self.lookahead - 1, len(sequence.token_ids))
        if wanted > len(sequence.blocks) * self.block_size and self.pool.num_free > self.max_seqs:
            sequence.hold(self.pool.allocate(1))

    def _preempt(self, sequence: Sequence) -> None:
        self._stop(sequence)
        self.num_preemptions += 1
        self.add(sequence)

    def _stop(self, sequence: Sequence) -> None:
        """It runs no more."""
        self.running.remove(sequence)
        if sequence.taps is not None:
            self.turns.end()
        self.pool.deallocate(sequence.release())

    def _shares(self) -> Shares:
        callers = self.waiting.callers
        return Shares(self.running, callers, self.max_seqs, self.pool.num_blocks)

    def _begin(self, budget: int, passed: Collection[str] = ()) -> list[Chunk]:
        """Admit sequences, none of the callers passed, as long as there are tokens for them."""
        chunks: list[Chunk] = []
        while budget and not self.is_paused and (admitted := self._admit(passed)):
            chunks.append(self._prefill(admitted, budget))
            budget -= chunks[-1].count
        return chunks

    def _prefill(self, sequence: Sequence, budget: int) -> Chunk:
        start = sequence.num_computed
        if sequence.taps is not None and (most := sequence.taps.most_tokens(start)) is not None:
            budget = min(budget, most)
        chunk = Chunk(sequence, start, min(budget, sequence.num_tokens - start))
        if self.lookahead > 1 and chunk.samples:
            self._look_ahead(sequence, sequence.num_tokens + 1)
        return chunk

    def _admit(self, passed: Collection[str]) -> Sequence | None:
        """Move the next waiting sequence to the running ones if it fits, or others give way."""
        sequence = self._claimed() or self._next(passed)
        if sequence is None:
            return None
        if not self._fits(sequence):
            sequence = self._claimed() or self._deprived({*passed})
            if sequence is None or not self._others_give_way(sequence):
                return None
        self._claimant = None
        self.pool.unclaim(self)
        self.waiting.admit(sequence)
        self._start(sequence)
        return sequence

    def _fits(self, sequence: Sequence) -> bool:
        if len(self.running) >= self.max_seqs:
            return False
        cached = self._cached_blocks(sequence)
        missing = -(-sequence.num_tokens // self.block_size) - len(cached)
        # Each running sequence will soon want its next block: admitting into those would only
        # preempt the newcomer again.
        wanted = missing + len(self.running)
        if cached:
            wanted += self.pool.num_idle(cached)
        return self.pool.claim(self, wanted)

    def _claimed(self) -> Sequence | None:
        """For whom others gave way and who still waits for more of them."""
        claimant = self._claimant
        if claimant and claimant.status == "waiting" and not claimant.is_late:
            return claimant
        return None

    def _deprived(self, passed: set[str]) -> Sequence | None:
        """The first one that waits although its caller is below its share."""
        shares = self._shares()
        if len(shares.callers) == 1:
            return None
        while sequence := self._next(passed):
            if shares.has_room(sequence, self.block_size):
                return sequence
            passed.add(sequence.request.caller)
        return None

    def _others_give_way(self, sequence: Sequence) -> bool:
        """Whether it fits then; where it does not yet, nobody else is admitted before it is."""
        self._claimant = sequence
        while not self._fits(sequence):
            if (victim := self._shares().above()) is None:
                return False
            self._preempt(victim)
        return True

    def _next(self, passed: Collection[str] = ()) -> Sequence | None:
        """Whose turn it is, among those that can still be in time; not of the callers passed."""
        while (sequence := self.waiting.first(passed)) and sequence.is_late:
            if len(self.late) >= MOST_LATE:
                return None
            self.remove(sequence)
            self.late.append(sequence)
        return sequence

    def end_late(self) -> None:
        """Take out all whose deadline passed while they waited, whoever's turn it is."""
        for sequence in [waiting for waiting in self.waiting if waiting.is_late][:MOST_LATE]:
            self.remove(sequence)
            self.late.append(sequence)

    def pause(self, *, is_paused: bool) -> None:
        """Begin nothing more until told otherwise; what runs goes on."""
        self.is_paused = is_paused
        if is_paused:
            self.pool.unclaim(self)

    def _cached_blocks(self, sequence: Sequence) -> list[int]:
        """Blocks of the prefix cache it may read; at least one token remains to be computed."""
        count = sequence.max_cached_tokens // self.block_size
        return self.pool.lookup(sequence.block_names(count)) if count else []

    def _start(self, sequence: Sequence) -> None:
        cached = self._cached_blocks(sequence)
        self.pool.share(cached)
        missing = -(-sequence.num_tokens // self.block_size) - len(cached)
        sequence.hold(cached + self.pool.allocate(missing))
        sequence.num_computed = len(cached) * self.block_size
        sequence.num_published = len(cached)
        if sequence.num_admissions == 0:
            self.num_prefix_queries += sequence.max_cached_tokens
            self.num_prefix_hits += sequence.num_computed
            sequence.num_cached_tokens = sequence.num_computed
            sequence.started = time.monotonic()
        sequence.num_admissions += 1
        sequence.status = "running"
        if sequence.taps is not None:
            self.turns.begin()
        if self.running and sequence.order < self.running[-1].order:
            insort(self.running, sequence, key=attrgetter("order"))
        else:
            self.running.append(sequence)
