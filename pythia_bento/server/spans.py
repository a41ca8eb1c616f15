"""Below the span of a call, of HTTP or gRPC: what the engine did for it and when.

These spans are made when the answer is on its way, of times that were taken anyhow: a token costs
nothing, and neither does a call that is not sampled.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span, Tracer

from pythia_bento.server.gen_ai import gen_ai
from pythia_bento.telemetry.calls import CallContext
from pythia_bento.telemetry.request_timings import RequestTimings

# Prompts of a call whose spans are made: an exporter drops what comes too fast.
MAX_TRACED = 32


class Sampler(ParentBasedTraceIdRatio):
    """OpenTelemetry's, which says what it was made with."""

    def __init__(self, rate: float) -> None:
        """``rate`` is the share of the traces begun here that is collected."""
        super().__init__(rate)
        self.rate = rate


class Uncollected:
    """Makes the spans of calls whose traces begin here and are never collected.

    They have numbers, for log lines, and nothing else.
    """

    def __init__(self, ids: IdGenerator) -> None:
        self._ids = ids
        self._links = {field.lower() for field in propagate.get_global_textmap().fields}

    @classmethod
    def of(cls, provider: Any) -> Uncollected | None:
        """None where traces may be collected."""
        if not isinstance(provider, TracerProvider):
            return None
        sampler = provider.sampler
        is_never = isinstance(sampler, Sampler) and sampler.rate == 0.0
        return cls(provider.id_generator) if is_never else None

    def is_linked(self, names: Iterable[str]) -> bool:
        """Whether the caller sent the number of its own trace, by the names of what it sent."""
        return not self._links.isdisjoint(names)

    def make(self) -> Span:
        """A span with new numbers."""
        numbers = self._ids.generate_trace_id(), self._ids.generate_span_id()
        return _NumberedSpan(trace.SpanContext(*numbers, is_remote=False))


class _NumberedSpan(trace.NonRecordingSpan):
    """A trace's number for log lines. BentoML records all that goes into spans nobody collects."""

    @property
    def context(self) -> trace.SpanContext:
        """As the SDK's spans have it: BentoML's hook reads the span's number."""
        return self.get_span_context()


def trace_call(tracer: Tracer, call: CallContext) -> None:
    """Complete the current span, that of the call, with what the engine did for it."""
    span = trace.get_current_span()
    if not span.get_span_context().trace_flags.sampled:
        return
    span.set_attribute("pythia.request_id", call.request_id)
    if call.caller is not None:
        span.set_attribute("pythia.caller", call.caller)
    for name, value in call.log_fields().items():
        span.set_attribute(f"pythia.{name}", value)
    span.set_attributes(gen_ai(call))
    now = time.monotonic()
    offset = time.time() - now
    for timings in call.requests[:MAX_TRACED]:
        _trace_request(tracer, span, timings, offset, now)


def _trace_request(
    tracer: Tracer, parent: Span, timings: RequestTimings, offset: float, now: float
) -> None:
    end = timings.last if timings.has_ended and timings.last else now
    context = trace.set_span_in_context(parent)
    for name, start, stop, attributes in _phases(timings, end):
        span = tracer.start_span(
            f"pythia.{name}", context, attributes=attributes, start_time=_nanoseconds(start, offset)
        )
        span.end(_nanoseconds(stop, offset))


def _phases(
    timings: RequestTimings, end: float
) -> Iterator[tuple[str, float, float, dict[str, Any]]]:
    """Name, start, end and attributes of each phase that was begun."""
    common = {"pythia.engine_request_id": timings.request.request_id}
    queued = timings.started or end
    yield "queue", timings.arrived, queued, common
    if not timings.first:
        return
    prompt = {
        "pythia.prompt_tokens": len(timings.request.prompt),
        "pythia.cached_tokens": timings.num_cached_tokens,
    }
    yield "prefill", timings.started, timings.first, common | prompt
    steps = timings.steps if timings.has_ended else None
    reasons = {str(reason) for reason in timings.reasons} or {"abort"}
    decode: dict[str, Any] = {
        "pythia.generated_tokens": timings.num_generated,
        "pythia.sequences": timings.request.n,
        "pythia.finish_reasons": sorted(reasons),
    }
    if steps is not None and steps.steps:
        decode["pythia.steps"] = steps.steps
        decode["pythia.mean_batch_size"] = round(steps.sequences / steps.steps, 2)
    yield "decode", timings.first, end, common | decode


def _nanoseconds(monotonic: float, offset: float) -> int:
    return round((monotonic + offset) * 1e9)
