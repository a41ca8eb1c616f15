"""Requests with an unfinished sequence: how they end, and what is reported of them."""

from __future__ import annotations

from collections.abc import Iterable

from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.scheduler import Scheduler
from pythia_bento.engine.sequence import Sequence
from pythia_bento.errors import DeadlineExceeded, NonFiniteLogits, OutOfMemory, PythiaError


class OpenRequests:
    """All that a request leaves behind goes with it: its blocks, its place, its siblings."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._sequences: dict[str, list[Sequence]] = {}  # by request id
        self._unfinished: dict[str, int] = {}  # how many of them, counted: there may be thousands
        self.num_non_finite = 0

    def __len__(self) -> int:
        return len(self._sequences)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._sequences

    def add(self, request_id: str, sequences: list[Sequence]) -> None:
        """Queue the first; the others follow when its prompt is in the cache."""
        self._sequences[request_id] = sequences
        self._unfinished[request_id] = len(sequences)
        self._scheduler.add(sequences[0])

    def report(self, sequence: Sequence, result: ChunkResult, text: str) -> SequenceOutput:
        """The delta of this step; with the first, the other continuations follow."""
        output = _output(sequence, result, text)
        output.error = sequence.error
        has_siblings = sequence.request.n > 1 and sequence.index == 0
        if has_siblings and sequence.num_generated <= len(result.token_ids):
            self._release_siblings(sequence)
        if sequence.finish_reason is not None:
            self._remove(sequence)
        return output

    def fail(self, sequence: Sequence, error: PythiaError | None = None) -> SequenceOutput:
        """End a sequence whose logits are not finite; nobody may read what it computed.

        ``error`` is another reason, if it ends for that.
        """
        self.num_non_finite += error is None
        self._scheduler.pool.forget(sequence.blocks)
        output = self.report(sequence, ChunkResult([], []), sequence.finish("error"))
        # How much of the prompt was scored before depends on how it was cut into pieces.
        output.prompt_logprobs = None
        output.error = error or NonFiniteLogits(
            f"the model's logits at position {sequence.num_tokens} are not finite numbers"
        )
        return output

    def abort(self, request_id: str) -> list[SequenceOutput]:
        """The last outputs of a request; none for an unknown id."""
        outputs = []
        self._unfinished.pop(request_id, None)
        for sequence in self._sequences.pop(request_id, []):
            if sequence.status != "finished":
                self._scheduler.remove(sequence)
                outputs.append(_output(sequence, ChunkResult([], []), sequence.finish("abort")))
        return outputs

    def abort_all(self) -> list[SequenceOutput]:
        """The last outputs of everybody."""
        return [output for id in list(self._sequences) for output in self.abort(id)]

    def end_late(self) -> list[SequenceOutput]:
        """End what could not begin in time."""
        if not self._scheduler.late:
            return []
        late, self._scheduler.late = self._scheduler.late, []
        error = DeadlineExceeded("the request's deadline passed while it waited for its turn")
        return [output for sequence in late for output in self._end(sequence, error)]

    def end_without_memory(self, chunks: Iterable[Chunk]) -> list[SequenceOutput]:
        """End those for whom the device has no memory even alone."""
        error = OutOfMemory("the device has no memory to go on with this request; try again later")
        return [output for chunk in chunks for output in self._end(chunk.sequence, error)]

    def _end(self, sequence: Sequence, error: PythiaError) -> list[SequenceOutput]:
        """End a sequence, and those that waited for it to compute their prompt."""
        others = []
        if sequence.index == 0:  # nobody waits for any other one
            siblings = self._sequences[sequence.request.request_id]
            others = [sibling for sibling in siblings if sibling.status == "new"]
        self._scheduler.pool.forget(sequence.blocks)
        outputs = []
        for ended in (sequence, *others):
            output = _output(ended, ChunkResult([], []), ended.finish("error"))
            output.prompt_logprobs, output.error = None, error
            outputs.append(output)
            self._remove(ended)
        return outputs

    def _release_siblings(self, first: Sequence) -> None:
        for sibling in self._sequences[first.request.request_id][1:]:
            sibling.scores, sibling.num_scored = first.scores, first.num_scored
            self._scheduler.add(sibling)

    def _remove(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        request_id = sequence.request.request_id
        self._unfinished[request_id] -= 1
        if not self._unfinished[request_id]:
            del self._unfinished[request_id], self._sequences[request_id]


def _output(sequence: Sequence, result: ChunkResult, text: str) -> SequenceOutput:
    is_first = sequence.num_tokens - sequence.num_prompt == len(result.token_ids)
    return SequenceOutput(
        sequence.request.request_id,
        sequence.index,
        result.token_ids,
        text,
        None if sequence.params.logprobs is None else result.logprobs,
        sequence.prompt_logprobs if is_first else None,
        sequence.finish_reason,
        sequence.stop_reason,
        sequence.num_cached_tokens,
        started=sequence.started,
    )
