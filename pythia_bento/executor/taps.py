"""What the sequences of one pass want of it; see ``model.taps``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pythia_bento.engine.capture import Capture, Positions, layout
from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.engine.interventions import Interventions
from pythia_bento.engine.sequence import Sequence as EngineSequence
from pythia_bento.engine.tapped import Tapped
from pythia_bento.executor.capture_memory import CaptureMemory
from pythia_bento.executor.changes import Change
from pythia_bento.executor.input_batch import upload
from pythia_bento.executor.outlets import Outlet
from pythia_bento.executor.readers import LogitsReader, Reader, region_of, target
from pythia_bento.executor.spans import Span, index_of, span_of
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.sites import PATTERN, Place


@dataclass(frozen=True, slots=True)
class Ready:
    """What an executor keeps of a sequence with taps."""

    readers: list[Reader]
    logits: LogitsReader | None
    changes: list[Change]

    @classmethod
    def of(cls, sequence: EngineSequence, model: GPTNeoX, arena: np.ndarray | None) -> Ready:
        """Made with its first pass."""
        request, changes = sequence.request, _changes(sequence.request.interventions, model)
        if request.capture is None:
            return cls([], None, changes)
        readers, logits = _readers(request.capture, request.most_inputs, model, arena)
        return cls(readers, logits, changes)


class PassTaps:
    """``Taps`` of the chunks of one pass."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        starts: Sequence[int],
        model: GPTNeoX,
        memory: CaptureMemory | None,
    ) -> None:
        """``starts`` are the chunks' first rows; ``memory`` is where captures go.

        To be left as a context manager, before which it may still be written to.
        """
        self._chunks, self._model = chunks, model
        self.shows = any(chunk.sequence.request.capture is not None for chunk in chunks)
        stream = memory.stream() if memory is not None and self.shows else None
        self._outlet = Outlet(model.kernels.device, stream)
        arena = memory.array if memory is not None else None
        self._reads: dict[Place, list[tuple[Reader, Span, Tapped]]] = defaultdict(list)
        self._changes: dict[Place, list[tuple[Change, Span]]] = defaultdict(list)
        self._logits: list[tuple[LogitsReader, Span]] = []
        self._pattern_rows = np.empty(0, np.int64)  # of the layer at hand
        for number, chunk in enumerate(chunks):
            if (taps := chunk.sequence.taps) is None:
                continue
            if taps.kept is None:
                taps.kept = Ready.of(chunk.sequence, model, arena)
            self._add(number, chunk, starts[number] - chunk.start, taps)

    def _add(self, number: int, chunk: Chunk, offset: int, taps: Tapped) -> None:
        """The wishes of one chunk; rows that are filled are not asked for again."""
        ready: Ready = taps.kept
        end, device = chunk.start + chunk.count, self._model.kernels.device
        spans: dict[tuple[Positions, int], Span | None] = {}  # most have the same

        def span(positions: Positions, begin: int) -> Span | None:
            key = positions, begin
            if key not in spans:
                spans[key] = span_of(positions, number, begin, end, offset, device)
            return spans[key]

        for change in ready.changes:
            if (found := span(change.item.positions, chunk.start)) is not None:
                self._changes[change.item.place].append((change, found))
        unfilled = max(chunk.start, taps.num_filled)
        for reader in ready.readers:
            if (found := span(reader.tap.positions, unfilled)) is not None:
                self._reads[reader.tap.place].append((reader, found, taps))
        if ready.logits and (found := span(ready.logits.tap.positions, unfilled)) is not None:
            self._logits.append((ready.logits, found))

    def __enter__(self) -> PassTaps:
        return self

    def __exit__(self, *exception: object) -> None:
        self._outlet.settle()

    def wants(self, place: Place) -> bool:
        """See ``Taps``, and so below."""
        return place in self._reads or place in self._changes

    def places(self, num_layers: int) -> set[Place]:
        """All of them."""
        return {*self._reads, *self._changes}

    def at(self, place: Place, rows: Tensor, exponent: int = 0) -> None:
        """Change, then read."""
        for change, span in self._changes.get(place, ()):
            change.apply(rows, span, exponent)
        for reader, span, taps in self._reads.get(place, ()):
            reader.read(rows, exponent, span, self._outlet, taps)
        self._outlet.leave()

    def pattern_rows(self, layer: int) -> Tensor:
        """Of all who want some."""
        wanted = [span.rows for _, span, _ in self._reads.get(Place(PATTERN, layer), ())]
        self._pattern_rows = np.unique(np.concatenate(wanted)) if wanted else np.empty(0, np.int64)
        return upload(self._pattern_rows, self._model.kernels.device)

    def patterns(self, layer: int, first: int, weights: Tensor) -> None:
        """Hand each row to whoever wants it."""
        for reader, span, _ in self._reads[Place(PATTERN, layer)]:
            places = np.searchsorted(self._pattern_rows, span.rows)
            begin, end = np.searchsorted(places, (first, first + len(weights))).tolist()
            if begin < end:
                own = index_of(places[begin:end] - first, weights.device)
                reader.read_pattern(weights[own], begin, end, span, self._outlet)
        self._outlet.leave()

    def finish(self, hidden: Tensor, results: Sequence[ChunkResult]) -> None:
        """The last of what is wanted; wait for all. What cannot be shown ends its sequence.

        To be called when nothing else of the pass can fail any more.
        """
        for reader, span in self._logits:
            reader.read(hidden, span, self._outlet)
        faults = self._outlet.finish()
        for number, (chunk, result) in enumerate(zip(self._chunks, results, strict=True)):
            if (fault := faults.get(number)) is not None:
                result.is_finite, result.error = False, fault.error
            elif (taps := chunk.sequence.taps) is not None:
                taps.num_filled = max(taps.num_filled, chunk.start + chunk.count)


def _changes(interventions: Interventions | None, model: GPTNeoX) -> list[Change]:
    items = interventions.items if interventions else ()
    return [Change.of(item, model.kernels.device) for item in items]


def _readers(
    capture: Capture, inputs: int, model: GPTNeoX, arena: np.ndarray | None
) -> tuple[list[Reader], LogitsReader | None]:
    groups, nbytes = layout(capture, model.config, inputs)
    region = region_of(arena, capture.region, nbytes)
    targets = [tuple(target(region, placed) for placed in group) for group in groups]
    readers = [
        Reader.of(number, tap, targets[number], model) for number, tap in enumerate(capture.taps)
    ]
    if capture.logits is None:
        return readers, None
    tokens = upload(np.array(capture.logits.tokens), model.kernels.device)
    return readers, LogitsReader(capture.logits, targets[-1][0], tokens, model)
