"""The facade: requests go in, steps are made, deltas of answers come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from pythia_bento.engine.block_pool import BlockPool
from pythia_bento.engine.params import Request, SequenceOutput, TokenLogprob
from pythia_bento.engine.scheduler import Chunk, Scheduler
from pythia_bento.engine.sequence import Sequence
from pythia_bento.engine.stats import EngineStats, StepSizes
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.engine.validate import Limits, validate
from pythia_bento.errors import (
    CheckpointError,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    NonFiniteLogits,
    OutOfMemory,
    PythiaError,
)
from pythia_bento.executor.model_runner import ChunkResult, ModelRunner
from pythia_bento.executor.out_of_memory import execute_what_fits
from pythia_bento.model.gpt_neox import GPTNeoX


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes of an engine."""

    num_blocks: int  # KV blocks, each of the backend's ``block_size`` tokens
    max_batch_size: int = 64  # sequences in a step
    max_tokens_per_step: int = 512  # tokens in a step: longer prompts are computed in pieces

    def __post_init__(self) -> None:
        """Raise ValueError on sizes that could not make progress."""
        if self.num_blocks < 1 or self.max_batch_size < 1:
            raise ValueError("num_blocks and max_batch_size must be at least 1")
        if self.max_tokens_per_step < self.max_batch_size:
            raise ValueError(
                f"max_tokens_per_step ({self.max_tokens_per_step}) must be at least "
                f"max_batch_size ({self.max_batch_size}): every sequence needs a token a step"
            )


class Engine:
    """Continuous batching over one model. For one thread; see ``PythiaRunner`` for more."""

    def __init__(
        self,
        model: GPTNeoX,
        tokenizer: Tokenizer,
        config: EngineConfig,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Allocate the KV cache and prepare the device.

        ``on_progress(done, total)`` is called while graphs are captured. Raises CheckpointError
        when model and tokenizer do not match.
        """
        if tokenizer.num_tokens > model.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.num_tokens} tokens, "
                f"but the model has {model.config.vocab_size} rows"
            )
        self.config = config
        self.tokenizer = tokenizer
        self.block_size = model.kernels.block_size
        self.limits = Limits(
            num_tokens=tokenizer.num_tokens,
            max_positions=model.config.max_positions,
            cache_tokens=config.num_blocks * self.block_size,
        )
        self._pool = BlockPool(config.num_blocks)
        runner = _make_runner(model, config, tokenizer.num_tokens, on_progress)
        self._runner: ModelRunner | None = runner
        self._scheduler = Scheduler(
            *(self._pool, self.block_size, config.max_batch_size, config.max_tokens_per_step),
            lookahead=runner.lookahead,
        )
        self._requests: dict[str, list[Sequence]] = {}  # those with an unfinished sequence
        self._num_requests = self._non_finite = 0
        self._step_sizes = StepSizes()
        self._prompt_tokens = self._generation_tokens = 0

    def add_request(self, request: Request) -> None:
        """Queue a request; raises InvalidRequest, ContextLengthExceeded or EngineUnavailable."""
        self._alive()
        validate(request, self.limits)
        if request.request_id in self._requests:
            raise InvalidRequest(f"request id {request.request_id!r} is in use")
        self._num_requests += 1
        self._prompt_tokens += len(request.prompt)
        sequences = [
            Sequence(request, index, self._num_requests, self.tokenizer, self.block_size)
            for index in range(request.n)
        ]
        self._requests[request.request_id] = sequences
        self._scheduler.add(sequences[0])  # the others follow when its prompt is in the cache

    def abort(self, request_id: str) -> list[SequenceOutput]:
        """End a request now and free its blocks; its last outputs, none for an unknown id."""
        sequences = self._requests.pop(request_id, [])
        outputs = []
        for sequence in sequences:
            if sequence.status != "finished":
                self._scheduler.remove(sequence)
                outputs.append(_output(sequence, ChunkResult([], []), sequence.finish("abort")))
        return outputs

    def step(self) -> list[SequenceOutput]:
        """Compute the next tokens of as many sequences as fit; what became known about each."""
        runner = self._alive()
        chunks: Seq[Chunk] = self._scheduler.schedule()
        ended = self._end_late()
        if not chunks:
            return ended
        chunks, results = execute_what_fits(runner, chunks)
        if not results:
            return ended + self._end_without_memory(chunks)
        self._step_sizes.add(sum(result is not None for result in results))
        outputs = map(self._apply, chunks, results)
        return ended + [output for output in outputs if output is not None]

    def interrupt(self) -> None:
        """Nothing to do: ``step`` waits for nothing but the device. In any thread."""

    def generate(self, requests: Iterable[Request]) -> list[list[SequenceOutput]]:
        """Run requests to their end; for each its ``n`` answers in order."""
        requests = list(requests)
        for request in requests:
            self.add_request(request)
        answers: dict[tuple[str, int], SequenceOutput] = {}
        while self.has_work:
            for delta in self.step():
                key = (delta.request_id, delta.index)
                if key in answers:
                    answers[key].extend(delta)
                else:
                    answers[key] = delta
        return [[answers[r.request_id, index] for index in range(r.n)] for r in requests]

    @property
    def is_alive(self) -> bool:
        """Whether it takes requests: until ``close``."""
        return self._runner is not None

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has something to do."""
        return bool(self._requests)

    def stats(self) -> EngineStats:
        """A snapshot, cheap enough for every scrape."""
        scheduler, pool = self._scheduler, self._pool
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            blocks_used=pool.num_blocks - pool.num_free,
            blocks_total=pool.num_blocks,
            blocks_cached=pool.num_cached,
            steps=self._step_sizes.steps,
            prompt_tokens=self._prompt_tokens,
            generation_tokens=self._generation_tokens,
            prefix_queries=scheduler.num_prefix_queries,
            prefix_hits=scheduler.num_prefix_hits,
            preemptions=scheduler.num_preemptions,
            non_finite=self._non_finite,
            step_sequences=self._step_sizes.sequences,
            batch_sizes=self._step_sizes.counts,
        )

    def check(self) -> None:
        """Raise RuntimeError when a block is lost or held twice; for tests and debugging."""
        self._pool.check(sequence.blocks for sequence in self._scheduler.running)

    def close(self) -> list[SequenceOutput]:
        """Abort everything and drop model and cache; further calls raise EngineUnavailable."""
        outputs = [output for id in list(self._requests) for output in self.abort(id)]
        self._runner = None
        return outputs

    def _alive(self) -> ModelRunner:
        if self._runner is None:
            raise EngineUnavailable("the engine is closed")
        return self._runner

    def _apply(self, chunk: Chunk, result: ChunkResult | None) -> SequenceOutput | None:
        """Bring a result into the sequence's state; None while its prompt is not done."""
        sequence = chunk.sequence
        if result is None:
            return None
        if not result.is_finite:
            return self._fail(sequence)
        if result.prompt_logprobs:
            sequence.prompt_logprobs += result.prompt_logprobs
        text = self._accept(sequence, result) if result.token_ids else ""
        self._scheduler.advance(sequence, chunk.count + max(len(result.token_ids) - 1, 0))
        if sequence.num_computed < sequence.num_prompt:
            return None
        if sequence.params.max_tokens == 0:
            text = sequence.finish("length")
        elif not result.token_ids:
            return None  # recomputing after a preemption
        return self._report(sequence, result, text)

    def _accept(self, sequence: Sequence, result: ChunkResult) -> str:
        """Append the tokens up to the one that ends the sequence, and drop the rest."""
        before = sequence.num_tokens
        text = sequence.accept_all(result.token_ids)
        count = sequence.num_tokens - before
        if count < len(result.token_ids):
            del result.token_ids[count:], result.logprobs[count:]
        self._generation_tokens += count
        return text

    def _fail(self, sequence: Sequence) -> SequenceOutput:
        """End a sequence whose logits are not finite; nobody may read what it computed."""
        self._non_finite += 1
        self._pool.forget(sequence.blocks)
        output = self._report(sequence, ChunkResult([], []), sequence.finish("error"))
        # How much of the prompt was scored before depends on how it was cut into pieces.
        output.prompt_logprobs = None
        output.error = NonFiniteLogits(
            f"the model's logits at position {sequence.num_tokens} are not finite numbers"
        )
        return output

    def _end_late(self) -> list[SequenceOutput]:
        """End what could not begin in time."""
        late, self._scheduler.late = self._scheduler.late, []
        error = DeadlineExceeded("the request's deadline passed while it waited for its turn")
        return [output for sequence in late for output in self._end(sequence, error)]

    def _end_without_memory(self, chunks: Iterable[Chunk]) -> list[SequenceOutput]:
        error = OutOfMemory("the device has no memory to go on with this request; try again later")
        return [output for chunk in chunks for output in self._end(chunk.sequence, error)]

    def _end(self, sequence: Sequence, error: PythiaError) -> list[SequenceOutput]:
        """End a sequence, and those that waited for it to compute their prompt."""
        request = sequence.request
        others = [s for s in self._requests[request.request_id] if s.status == "new"]
        self._pool.forget(sequence.blocks)
        outputs = []
        for ended in (sequence, *others):
            output = _output(ended, ChunkResult([], []), ended.finish("error"))
            output.prompt_logprobs, output.error = None, error
            outputs.append(output)
            self._remove(ended)
        return outputs

    def _report(self, sequence: Sequence, result: ChunkResult, text: str) -> SequenceOutput:
        """The delta of this step; with the first, the other continuations follow."""
        output = _output(sequence, result, text)
        if sequence.num_generated <= len(result.token_ids) and sequence.index == 0:
            self._release_siblings(sequence)
        if sequence.finish_reason is not None:
            self._remove(sequence)
        return output

    def _release_siblings(self, first: Sequence) -> None:
        for sibling in self._requests[first.request.request_id][1:]:
            sibling.prompt_logprobs = first.prompt_logprobs
            self._scheduler.add(sibling)

    def _remove(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        siblings = self._requests.get(sequence.request.request_id, ())
        if siblings and all(sibling.status == "finished" for sibling in siblings):
            del self._requests[sequence.request.request_id]


def _make_runner(
    model: GPTNeoX,
    config: EngineConfig,
    num_tokens: int,
    on_progress: Callable[[int, int], None] | None,
) -> ModelRunner:
    """Captured graphs where the kernels can be captured."""
    if model.kernels.name != "triton":
        return ModelRunner(model, config.num_blocks, num_tokens)
    # Imported late: triton is installed with the GPU's packages only.
    from pythia_bento.executor.graphs.runner import CudaModelRunner

    sizes = config.max_batch_size, config.max_tokens_per_step
    return CudaModelRunner(model, config.num_blocks, num_tokens, *sizes, on_progress)


def _output(sequence: Sequence, result: ChunkResult, text: str) -> SequenceOutput:
    is_first = sequence.num_generated == len(result.token_ids)
    return SequenceOutput(
        sequence.request.request_id,
        sequence.index,
        result.token_ids,
        text,
        None if sequence.params.logprobs is None else result.logprobs,
        _prompt_logprobs(sequence) if is_first else None,
        sequence.finish_reason,
        sequence.stop_reason,
        sequence.num_cached_tokens,
        started=sequence.started,
    )


def _prompt_logprobs(sequence: Sequence) -> list[TokenLogprob] | None:
    """All of them or none: a sequence that was ended early has only some."""
    is_complete = len(sequence.prompt_logprobs) == sequence.num_prompt - 1
    if sequence.params.prompt_logprobs is None or not is_complete:
        return None
    return sequence.prompt_logprobs
