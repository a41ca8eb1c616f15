"""What became of requests and when, seen where outputs leave the engine.

The engine may have a process of its own; this side of it sees the same in both cases, and the
clock (``time.monotonic``) is one for all processes of a machine.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pythia_bento.engine.params import FinishReason, Request, SequenceOutput, Timings
from pythia_bento.histogram import Histogram

REASONS: tuple[FinishReason, ...] = ("stop", "length", "abort", "error")


@dataclass(slots=True)
class Watched:
    """One request on its way; times are of ``time.monotonic``, 0 before they come."""

    request: Request
    arrived: float
    started: float = 0.0  # first step
    first: float = 0.0  # first output: a token, or the score of the prompt
    last: float = 0.0  # latest output
    num_cached_tokens: int = 0
    num_generated: int = 0
    reasons: list[FinishReason] = field(default_factory=list)  # of the sequences that ended
    lasts: dict[int, float] = field(default_factory=dict)  # by sequence
    steps: _Steps | None = None  # that had an output, up to the first one; at the end, after it

    @property
    def has_ended(self) -> bool:
        """Whether all its sequences have."""
        return len(self.reasons) == self.request.n

    def timings(self) -> Timings:
        """Valid once something was seen."""
        return Timings(
            queue=self.started - self.arrived,
            prefill=self.first - self.started,
            decode=self.last - self.first,
            total=self.last - self.arrived,
        )


@dataclass(frozen=True, slots=True)
class _Steps:
    """Steps that brought outputs, and the sequences that had one."""

    steps: int
    sequences: int


class RequestWatch:
    """``arrived`` in any thread, before outputs come; the rest in the engine's thread."""

    def __init__(self) -> None:
        self.ended: dict[FinishReason, int] = dict.fromkeys(REASONS, 0)  # sequences
        self._first_token = Histogram()
        self._between = Histogram()
        self._total = Histogram()
        self._queue = Histogram()
        self._prefill = Histogram()
        self._decode = Histogram()
        self.histograms = {
            "time_to_first_token_seconds": self._first_token,
            "inter_token_latency_seconds": self._between,
            "e2e_request_latency_seconds": self._total,
            "request_queue_time_seconds": self._queue,
            "request_prefill_time_seconds": self._prefill,
            "request_decode_time_seconds": self._decode,
        }
        self._open: dict[str, Watched] = {}
        self._steps = self._sequences = 0

    def arrived(self, requests: Sequence[Request]) -> None:
        """Requests were taken."""
        now = time.monotonic()
        for request in requests:
            self._open[request.request_id] = watched = Watched(request, now)
            if request.call is not None:
                request.call.watched.append(watched)

    def saw(self, outputs: Sequence[SequenceOutput]) -> None:
        """A step brought these; the last of a request gets its ``timings``."""
        now = time.monotonic()
        self._steps += 1
        self._sequences += len(outputs)
        gaps: defaultdict[tuple[float, int], int] = defaultdict(int)  # most are alike in a step
        for output in outputs:
            if (watched := self._open.get(output.request_id)) is None:
                continue
            if output.token_ids or output.error is None:
                count, index = len(output.token_ids), output.index
                if index in watched.lasts:
                    gaps[watched.lasts[index], count] += count
                elif not watched.lasts:
                    self._first(watched, output, now)
                watched.lasts[index] = watched.last = now
                watched.num_generated += count
            if output.finish_reason is not None:
                self._end_sequence(watched, output.finish_reason)
                output.timings = watched.timings() if watched.has_ended else None
        for (last, count), times in gaps.items():
            if count:
                self._between.observe((now - last) / count, times)

    def aborted(self, request_id: str) -> None:
        """What was unfinished of a request is taken out."""
        if (watched := self._open.get(request_id)) is not None:
            for _ in range(watched.request.n - len(watched.reasons)):
                self._end_sequence(watched, "abort")

    def _first(self, watched: Watched, output: SequenceOutput, now: float) -> None:
        watched.started, watched.first = output.started, now
        watched.num_cached_tokens = output.num_cached_tokens
        watched.steps = _Steps(self._steps, self._sequences)
        self._queue.observe(watched.started - watched.arrived)
        self._prefill.observe(now - watched.started)
        if output.token_ids:
            self._first_token.observe(now - watched.arrived)

    def _end_sequence(self, watched: Watched, reason: FinishReason) -> None:
        self.ended[reason] += 1
        watched.reasons.append(reason)
        if watched.has_ended:
            del self._open[watched.request.request_id]
            self._end(watched)

    def _end(self, watched: Watched) -> None:
        if before := watched.steps:
            watched.steps = _Steps(self._steps - before.steps, self._sequences - before.sequences)
        if {"stop", "length"}.issuperset(watched.reasons):
            self._total.observe(watched.last - watched.arrived)
            if watched.num_generated:
                self._decode.observe(watched.last - watched.first)
