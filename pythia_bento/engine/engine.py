"""The facade: requests go in, steps are made, deltas of answers come out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq

import numpy as np

from pythia_bento.engine.block_pool import ROOT_HASH, BlockPool
from pythia_bento.engine.executor import (
    Chunk,
    ChunkResult,
    Executor,
    bare_limits,
    execute_what_fits,
    tokens_of,
)
from pythia_bento.engine.fair_queue import Books
from pythia_bento.engine.grammars import Constraint
from pythia_bento.engine.guides import grammars_of
from pythia_bento.engine.open_requests import OpenRequests
from pythia_bento.engine.outputs import SequenceOutput, collect, failure
from pythia_bento.engine.params import Request
from pythia_bento.engine.scheduler import Scheduler
from pythia_bento.engine.sequence import Sequence
from pythia_bento.engine.speculation import MOST_ROWS, Speculation
from pythia_bento.engine.stats import EngineStats
from pythia_bento.engine.tally import Tally
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import Limits, validate
from pythia_bento.errors import CheckpointError, EngineUnavailable, InvalidRequest, PythiaError


class Engine:
    """Continuous batching over one model. For one thread; see ``PythiaRunner`` for more."""

    def __init__(
        self,
        executor: Executor,
        tokenizer: Tokenizer,
        limits: Limits | None = None,
        root: bytes = ROOT_HASH,
        pool: BlockPool | None = None,
        books: Books | None = None,
    ) -> None:
        """Raises CheckpointError when model and tokenizer do not match.

        ``limits`` are what model and cache can do where nobody allows less. ``root`` names what
        computes keys and values: nothing cached under another is ever read. Engines that take turns
        with one executor share ``pool`` and ``books``.
        """
        if tokenizer.num_tokens > executor.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.num_tokens} tokens, "
                f"but the model has {executor.vocab_size} rows"
            )
        config = executor.config
        self.tokenizer = tokenizer
        self.block_size = executor.block_size
        self.root = root
        self.limits = limits or bare_limits(executor, tokenizer.num_tokens)
        self._executor: Executor | None = executor
        self._pool = pool or BlockPool(config.num_blocks)
        self._scheduler = Scheduler(
            self._pool,
            self.block_size,
            max_seqs=config.max_batch_size,
            max_tokens=config.max_tokens_per_step,
            most_tokens=config.most_tokens,
            lookahead=max(executor.lookahead, MOST_ROWS if config.speculates else 1),
            books=books,
        )
        self._open = OpenRequests(self._scheduler)
        self._speculation = Speculation(config.max_tokens_per_step) if config.speculates else None
        self._tally = Tally()
        self._under_way: list[tuple[Chunk, ChunkResult]] = []  # in order
        self._began = 0.0  # time.monotonic() when the device began what it is at

    def prepare(self, constraint: Constraint) -> None:
        """Compile what requests are to ask for, which may take seconds. In any thread.

        Raises InvalidRequest or Overloaded.
        """
        grammars_of(self.tokenizer).get(constraint)

    def lend(self, arena: np.ndarray) -> None:
        """Bytes that captures are written to: each request's region is in them."""
        self._alive().arena = arena

    def add_request(self, request: Request) -> None:
        """Queue a request that ``validate`` has passed with these limits.

        Raises InvalidRequest where its id is in use, EngineUnavailable, and what ``prepare`` raises
        where that was not called of late.
        """
        self._alive()
        if request.request_id in self._open:
            raise InvalidRequest(f"request id {request.request_id!r} is in use")
        constraint = request.params.constraint
        grammar = None if constraint is None else grammars_of(self.tokenizer).get(constraint)
        self._tally.requests += 1
        self._tally.prompt_tokens += len(request.prompt)
        order, parts = self._tally.requests, (self.tokenizer, self.block_size, self.root, grammar)
        sequences = [Sequence(request, index, order, *parts) for index in range(request.n)]
        self._open.add(request.request_id, sequences)

    def abort(self, request_id: str) -> list[SequenceOutput]:
        """End a request now and free its blocks; its last outputs, none for an unknown id."""
        return self._open.abort(request_id)

    def step(self) -> list[SequenceOutput]:
        """Compute the next tokens of as many sequences as fit; what became known about each."""
        executor = self._alive()
        chunks = self._scheduler.schedule()
        ended = self._open.end_late()
        if not chunks:
            return ended + self._complete()
        if self._speculation:
            self._speculation.draft(chunks)
        began = time.monotonic()
        others_wait = bool(self._scheduler.waiting)
        executor.others_next = self._scheduler.turns.is_last
        fitting, results = execute_what_fits(executor, chunks, others_wait=others_wait)
        ended += self._complete()  # of the step before, while this one is under way
        self._began = max(began, self._began)
        if not results:
            open = [chunk for chunk in fitting if chunk.sequence.status != "finished"]
            return ended + self._open.end_without_memory(open)
        found = [result for result in results if result is not None]
        if not [result for result in found if result.complete is not None]:
            self._observe(tokens_of(fitting, results))
        self._tally.step_sizes.add(len(found))
        ended += [output for output in map(self._apply, fitting, results) if output]
        return ended + self._complete() if self._scheduler.is_patient else ended

    def land(self) -> list[SequenceOutput]:
        """What steps under way have found; to be called before others use the executor."""
        return self._complete() if self._under_way else []

    def end_late(self) -> list[SequenceOutput]:
        """End what waited until its deadline; ``step`` does so for those whose turn it is."""
        self._scheduler.end_late()
        return self._open.end_late()

    def fail_all(self, error: PythiaError) -> list[SequenceOutput]:
        """End everything with an error."""
        ended = self._open.abort_all()
        return [failure(output.request_id, output.index, error) for output in ended]

    def pause(self, *, is_paused: bool) -> None:
        """Begin nothing more until told otherwise; what runs goes on."""
        self._scheduler.pause(is_paused=is_paused)

    def interrupt(self) -> None:
        """Nothing to do: ``step`` waits for nothing but the device. In any thread."""

    def generate(self, requests: Iterable[Request]) -> list[list[SequenceOutput]]:
        """Run requests to their end; for each its ``n`` answers in order.

        Raises InvalidRequest or ContextLengthExceeded before any is begun.
        """
        requests = list(requests)
        for request in requests:
            validate(request, self.limits)
        for request in requests:
            self.add_request(request)
        return collect(requests, self._outputs())

    def _outputs(self) -> Iterator[SequenceOutput]:
        while self.has_work:
            yield from self.step()

    @property
    def is_alive(self) -> bool:
        """Whether it takes requests: until ``close``."""
        return self._executor is not None

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has something to do."""
        return len(self._open) > 0

    @property
    def is_running(self) -> bool:
        """Whether a sequence holds blocks, or is under way."""
        return bool(self._scheduler.running or self._under_way)

    @property
    def callers(self) -> dict[str, int]:
        """Who has something to do; see ``Scheduler.callers``."""
        return self._scheduler.callers

    @property
    def newcomers(self) -> dict[str, int]:
        """Who has nothing running yet; see ``Scheduler.newcomers``."""
        return self._scheduler.newcomers

    @property
    def running(self) -> Seq[Sequence]:
        """Sequences that hold blocks."""
        return self._scheduler.running

    def stats(self) -> EngineStats:
        """A snapshot, cheap enough for every scrape."""
        return self._tally.stats(self._scheduler, self._open, self._speculation)

    def check(self) -> None:
        """Raise RuntimeError when a block is lost or held twice; for tests and debugging."""
        self._pool.check(sequence.blocks for sequence in self._scheduler.running)

    def close(self) -> list[SequenceOutput]:
        """Abort everything and drop model and cache; further calls raise EngineUnavailable."""
        outputs = self._open.abort_all()
        self._executor, self._under_way = None, []
        return outputs

    def _alive(self) -> Executor:
        if self._executor is None:
            raise EngineUnavailable("the engine is closed")
        return self._executor

    def _apply(self, chunk: Chunk, result: ChunkResult | None) -> SequenceOutput | None:
        """Bring a result into the sequence's state; None while its prompt is not done."""
        sequence = chunk.sequence
        if result is None or sequence.status == "finished":
            return None
        if sequence.params.prompt_logprobs is not None:
            sequence.score_to(chunk.start + chunk.count)
        if result.complete is not None:
            self._scheduler.advance(sequence, chunk.count)
            self._under_way.append((chunk, result))
            return None
        return self._found(chunk, result, chunk.count - chunk.drafted)

    def _found(self, chunk: Chunk, result: ChunkResult, computed: int) -> SequenceOutput | None:
        """What is known of a chunk; ``computed`` of its known tokens were not counted yet."""
        sequence = chunk.sequence
        if not result.is_finite:
            return self._open.fail(sequence, result.error)
        if self._speculation and chunk.drafted:
            self._speculation.judge(chunk, len(result.token_ids))
        text = self._accept(sequence, result) if result.token_ids else ""
        # Not beyond its end: what an executor computed there is of tokens that nobody knows.
        self._scheduler.advance(sequence, computed + max(len(result.token_ids) - 1, 0))
        return self._report(chunk, result, text)

    def _complete(self) -> list[SequenceOutput]:
        """Read what steps under way have found."""
        under_way, self._under_way = self._under_way, []
        for _, result in under_way:
            if result.complete is not None:
                result.complete()
        self._observe(sum(chunk.count for chunk, _ in under_way))
        found = (
            self._found(chunk, result, 0)
            for chunk, result in under_way
            if chunk.sequence.status != "finished"  # by an abort
        )
        return [output for output in found if output is not None]

    def _observe(self, tokens: int) -> None:
        """So many tokens are done, and the device has begun what comes next if that is queued."""
        if tokens:
            now = time.monotonic()
            self._scheduler.pace.observe(tokens, now - self._began)
            self._began = now

    def _report(self, chunk: Chunk, result: ChunkResult, text: str) -> SequenceOutput | None:
        """The output of a chunk that is computed; None where its prompt goes on."""
        sequence = chunk.sequence
        if result.prompt_logprobs:
            sequence.scores.append(result.prompt_logprobs)
        if chunk.start + chunk.count < sequence.num_prompt:
            return None
        if sequence.params.max_tokens == 0:
            text = sequence.finish("length")
        elif not result.token_ids:
            return None  # recomputing after a preemption
        return self._open.report(sequence, result, text)

    def _accept(self, sequence: Sequence, result: ChunkResult) -> str:
        """Append the tokens up to the one that ends the sequence, and drop the rest."""
        before = sequence.num_tokens
        text = sequence.accept_all(result.token_ids)
        count = sequence.num_tokens - before
        if count < len(result.token_ids):
            del result.token_ids[count:], result.logprobs[count:]
        self._tally.generation_tokens += count
        return text
