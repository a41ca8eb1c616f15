"""What became of requests and when, seen where outputs leave the engine.

The engine may have a process of its own; this side of it sees the same in both cases, and the
clock (``time.monotonic``) is one for all processes of a machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pythia_bento.engine.params import FinishReason, Request, SequenceOutput, Timings
from pythia_bento.telemetry.histogram import Histogram

REASONS: tuple[FinishReason, ...] = ("stop", "length", "abort", "error")


@dataclass(slots=True)
class Watched:
    """One request on its way; times are of ``time.monotonic``, 0 before they come."""

    request: Request
    arrived: float
    started: float = 0.0  # first step
    first: float = 0.0  # first output: a token, or the score of the prompt
    num_cached_tokens: int = 0
    num_generated: int = 0
    reasons: list[FinishReason] = field(default_factory=list)  # of the sequences that ended
    lasts: dict[int, float] = field(default_factory=dict)  # latest output, by sequence
    steps: _Steps | None = None  # that had an output, up to the first one; at the end, after it

    @property
    def last(self) -> float:
        """Latest output."""
        return max(self.lasts.values(), default=0.0)

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
        since, count, times = 0.0, 0, 0  # a run of outputs alike, as most of a step are
        for output in outputs:
            if (watched := self._open.get(output.request_id)) is None:
                continue
            tokens = len(output.token_ids)
            last = watched.lasts.get(output.index)
            if last is None or tokens == 0:
                self._saw_other(watched, output, now)
            else:
                if last != since or tokens != count:
                    self._saw_tokens(now - since, count, times)
                    since, count, times = last, tokens, 0
                times += 1
                watched.lasts[output.index] = now
                watched.num_generated += tokens
            if output.finish_reason is not None:
                self._end_sequence(watched, output.finish_reason)
                output.timings = watched.timings() if watched.has_ended else None
        self._saw_tokens(now - since, count, times)

    def aborted(self, request_id: str) -> None:
        """What was unfinished of a request is taken out."""
        if (watched := self._open.get(request_id)) is not None:
            for _ in range(watched.request.n - len(watched.reasons)):
                self._end_sequence(watched, "abort")

    def _saw_tokens(self, seconds: float, count: int, times: int) -> None:
        """``times`` sequences got ``count`` tokens each, ``seconds`` after those before."""
        if times:
            self._between.observe(seconds / count, count * times)

    def _saw_other(self, watched: Watched, output: SequenceOutput, now: float) -> None:
        """A sequence's first output, or one without tokens."""
        if output.error is not None and not output.token_ids:
            return
        if not watched.lasts:
            self._first(watched, output, now)
        watched.lasts[output.index] = now
        watched.num_generated += len(output.token_ids)

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
