from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.instrumentation import asgi
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pythia_bento.api import tracing

EVENTS = 5


async def streaming(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(EVENTS):
        more = number + 1 < EVENTS
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": more})


async def spans(middleware: type[asgi.OpenTelemetryMiddleware]) -> tuple[ReadableSpan, ...]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = middleware(streaming, tracer_provider=provider)
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert len(sent) == 1 + EVENTS
    return exporter.get_finished_spans()


async def test_a_stream_is_one_span(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = asgi.OpenTelemetryMiddleware
    monkeypatch.setattr(asgi, "OpenTelemetryMiddleware", plain)  # put back afterwards
    tracing.install()
    found = await spans(asgi.OpenTelemetryMiddleware)
    assert [span.name for span in found] == ["POST /v1/completions"]
    assert found[0].attributes is not None
    assert found[0].attributes["http.status_code"] == 200
    assert len(await spans(plain)) > EVENTS  # what it would be without
