"""What became of requests and when, seen where outputs leave the engine.

The engine may have a process of its own; this side of it sees the same in both cases, and the
clock (``time.monotonic``) is one for all processes of a machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from pythia_bento.engine.outputs import FinishReason, SequenceOutput
from pythia_bento.engine.params import Request
from pythia_bento.telemetry.histogram import Histogram

REASONS: tuple[FinishReason, ...] = ("stop", "length", "abort", "error")


class Phases(TypedDict):
    """Seconds of a request; queue + prefill + decode = total."""

    queue: float  # from arrival to the first step
    prefill: float  # from there to the first token
    decode: float  # from there to the last one
    total: float


@dataclass(slots=True)
class RequestTimings:
    """What became of one request; times are of ``time.monotonic``, 0 before they come."""

    request: Request
    arrived: float = field(default_factory=time.monotonic)
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

    def phases(self) -> Phases:
        """Valid once an output was seen."""
        last = self.last
        return {
            "queue": self.started - self.arrived,
            "prefill": self.first - self.started,
            "decode": last - self.first,
            "total": last - self.arrived,
        }


@dataclass(frozen=True, slots=True)
class _Steps:
    """Steps that brought outputs, and the sequences that had one."""

    steps: int
    sequences: int


class RequestWatch:
    """Counts and times what is told to it; for one thread at a time."""

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
        self._steps = self._sequences = 0

    def on_outputs(self, outputs: Sequence[tuple[RequestTimings, SequenceOutput]]) -> None:
        """A step brought these, each with the record of its request."""
        now = time.monotonic()
        self._steps += 1
        self._sequences += len(outputs)
        since, count, times = 0.0, 0, 0  # a run of outputs alike, as most of a step are
        for timings, output in outputs:
            tokens = len(output.token_ids)
            last = timings.lasts.get(output.index)
            if last is None or tokens == 0:
                self._on_other(timings, output, now)
            else:
                if last != since or tokens != count:
                    self._on_tokens(now - since, count, times)
                    since, count, times = last, tokens, 0
                times += 1
                timings.lasts[output.index] = now
                timings.num_generated += tokens
            if output.finish_reason is not None:
                self._end_sequence(timings, output.finish_reason)
        self._on_tokens(now - since, count, times)

    def on_abort(self, timings: RequestTimings) -> None:
        """What was unfinished of a request is taken out."""
        for _ in range(timings.request.n - len(timings.reasons)):
            self._end_sequence(timings, "abort")

    def _on_tokens(self, seconds: float, count: int, times: int) -> None:
        """``times`` sequences got ``count`` tokens each, ``seconds`` after those before."""
        if times:
            self._between.observe(seconds / count, count * times)

    def _on_other(self, timings: RequestTimings, output: SequenceOutput, now: float) -> None:
        """A sequence's first output, or one without tokens."""
        if output.error is not None and not output.token_ids:
            return
        if not timings.lasts:
            self._on_first(timings, output, now)
        timings.lasts[output.index] = now
        timings.num_generated += len(output.token_ids)

    def _on_first(self, timings: RequestTimings, output: SequenceOutput, now: float) -> None:
        timings.started, timings.first = output.started, now
        timings.num_cached_tokens = output.num_cached_tokens
        timings.steps = _Steps(self._steps, self._sequences)
        self._queue.observe(timings.started - timings.arrived)
        self._prefill.observe(now - timings.started)
        if output.token_ids:
            self._first_token.observe(now - timings.arrived)

    def _end_sequence(self, timings: RequestTimings, reason: FinishReason) -> None:
        self.ended[reason] += 1
        timings.reasons.append(reason)
        if timings.has_ended:
            self._end(timings)

    def _end(self, timings: RequestTimings) -> None:
        if before := timings.steps:
            timings.steps = _Steps(self._steps - before.steps, self._sequences - before.sequences)
        if {"stop", "length"}.issuperset(timings.reasons):
            self._total.observe(timings.last - timings.arrived)
            if timings.num_generated:
                self._decode.observe(timings.last - timings.first)
