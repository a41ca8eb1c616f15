from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils.telemetry import ParentBasedTraceIdRatio as BentoMLSampler
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation import asgi
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer
from starlette.types import ASGIApp

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.bentoml import tracing
from pythia_bento.server.bentoml.access_log import AccessLog
from pythia_bento.server.spans import MAX_TRACED, Sampler
from tests.unit.conftest import app_of

EVENTS = 5


async def streaming(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(EVENTS):
        more = number + 1 < EVENTS
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": more})


async def spans(middleware: Callable[..., ASGIApp]) -> tuple[ReadableSpan, ...]:
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


PLAIN = asgi.OpenTelemetryMiddleware
OURS = partial(tracing.RequestSpans, theirs=PLAIN)


async def test_a_stream_is_one_span() -> None:
    found = await spans(OURS)
    assert [span.name for span in found] == ["POST /v1/completions"]
    assert found[0].attributes is not None
    assert found[0].attributes["http.status_code"] == 200
    assert len(await spans(PLAIN)) > EVENTS  # what it would be without


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
DOCUMENT = (Path(__file__).parents[4] / "docs" / "observability.md").read_text()


class Traced:
    """The OpenAI routes as BentoML would wrap them, and the spans of one call."""

    def __init__(self, runner: PythiaRunner, **options: Any) -> None:
        self._exporter, provider = InMemorySpanExporter(), TracerProvider(**options)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        calls = tracing.Calls(
            AccessLog(app_of(runner), skip_paths=["/livez"]), tracer_provider=provider
        )
        self.app = OURS(calls, tracer_provider=provider)

    async def post(self, path: str = "/v1/completions", id: str | None = None, **body: Any) -> Any:
        headers = {"traceparent": TRACEPARENT} | ({"X-Request-Id": id} if id else {})
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, json={"ignore_eos": True} | body, headers=headers)

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


def documented(heading: str) -> set[str]:
    """First column of a table."""
    table = DOCUMENT[DOCUMENT.index(f"| {heading} |") :].partition("\n\n")[0]
    return set(re.findall(r"^\| `(\S+)` \|", table, re.MULTILINE))


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_engine_did_is_below_the_request(runner: PythiaRunner, stream: bool) -> None:
    traced = Traced(runner)
    response = await traced.post(prompt="the end", n=2, max_tokens=4, stream=stream, id="me")
    assert (response.status_code, response.headers["x-request-id"]) == (200, "me")
    *phases, call = traced.spans()
    assert [span.name for span in phases] == ["pythia.queue", "pythia.prefill", "pythia.decode"]
    assert format(call.context.trace_id, "032x") == TRACE
    assert call.parent and format(call.parent.span_id, "016x") == PARENT
    assert {span.parent and span.parent.span_id for span in phases} == {call.context.span_id}
    queue, prefill, decode = phases
    times = [call.start_time, queue.start_time, queue.end_time, prefill.end_time, decode.end_time]
    assert all(times)
    assert queue.end_time == prefill.start_time and prefill.end_time == decode.start_time
    rising = [time or 0 for time in times]
    assert rising[1:] == sorted(rising[1:])
    assert call.attributes and decode.attributes and prefill.attributes and queue.attributes
    assert call.attributes["pythia.generated_tokens"] == 8
    assert call.attributes["pythia.finish_reasons"] == ("length",)
    assert prefill.attributes["pythia.prompt_tokens"] == call.attributes["pythia.prompt_tokens"]
    assert decode.attributes["pythia.sequences"] == 2
    assert decode.attributes["pythia.steps"] == 4
    assert decode.attributes["pythia.mean_batch_size"] == 1.75
    used = {name for span in traced.spans() for name in span.attributes or ()}
    ours = {name for name in used if name.startswith("pythia.")}
    assert ours == documented("Attribute")
    assert {span.name for span in phases} == documented("Span")


async def test_a_call_is_described_in_opentelemetrys_words(runner: PythiaRunner) -> None:
    traced = Traced(runner)
    sampling = {"temperature": 0.5, "top_p": 0.75, "top_k": 3, "seed": 2**64 - 7}
    await traced.post(prompt=["the end"] * 2, model="toy", n=2, max_tokens=4, **sampling)
    attributes = dict(traced.spans()[-1].attributes or {})
    found = {
        name.removeprefix("gen_ai."): value
        for name, value in attributes.items()
        if name.startswith("gen_ai.")
    }
    assert found.keys() == {name.removeprefix("gen_ai.") for name in documented("Convention")}
    assert found == {
        "operation.name": "text_completion",
        "provider.name": "pythia-bento",
        "request.model": "toy",
        "response.model": "toy@step3",
        "response.finish_reasons": ("length",) * 4,
        "usage.input_tokens": attributes["pythia.prompt_tokens"],
        "usage.output_tokens": 16,
        "request.temperature": 0.5,
        "request.top_p": 0.75,
        "request.top_k": 3,
        "request.max_tokens": 4,
        "request.frequency_penalty": 0,
        "request.presence_penalty": 0,
        "request.seed": -7,  # the same seed, in 64 bits with a sign
    }


async def test_a_score_generates_nothing(runner: PythiaRunner) -> None:
    traced = Traced(runner)
    await traced.post(prompt="the end", max_tokens=0, echo=True, logprobs=0)
    attributes = traced.spans()[-1].attributes or {}
    assert attributes["gen_ai.operation.name"] == "score"
    assert attributes["gen_ai.request.model"] == attributes["gen_ai.response.model"] == "toy@step3"
    assert attributes["gen_ai.usage.output_tokens"] == 0
    assert not {"gen_ai.request.temperature", "gen_ai.request.seed"} & attributes.keys()


@pytest.mark.parametrize("sampler", [Sampler, BentoMLSampler])
async def test_a_call_that_is_not_sampled_has_no_spans(runner: PythiaRunner, sampler: Any) -> None:
    traced = Traced(runner, sampler=sampler(0.0))
    await traced.post(prompt="the end", max_tokens=2)
    assert len(traced.spans()) == 4
    transport = httpx.ASGITransport(traced.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post("/v1/completions", json={"prompt": "the end"})
    assert response.status_code == 200
    assert len(traced.spans()) == 4


async def test_a_call_of_no_trace_has_a_number_for_its_log_lines() -> None:
    """What nobody collects is not recorded; a caller's own trace is."""
    numbers: list[trace.SpanContext] = []
    hooked: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert trace.get_current_span().is_recording() is bool(scope["headers"])
        numbers.append(trace.get_current_span().get_span_context())
        await streaming(scope, receive, send)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    provider = TracerProvider(sampler=Sampler(0.0))
    spans = OURS(
        app, tracer_provider=provider, server_request_hook=lambda span, _: hooked.append(span)
    )
    scope = {"type": "http", "method": "POST", "path": "/v1/completions"}
    parent = [(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())]
    for headers in ([], [], parent):
        await spans({**scope, "headers": headers}, receive, send)
    assert all(number.is_valid for number in numbers)
    assert len({number.trace_id for number in numbers}) == 3
    assert [number.trace_flags.sampled for number in numbers] == [False, False, True]
    assert [span.context for span in hooked] == numbers
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.fixture
def bentoml_tracer() -> Iterator[Tracer]:
    """A tracer of BentoML's own provider, with our sampler."""
    provider = BentoMLContainer.tracer_provider
    provider.reset()
    tracing.set_sampler()
    yield provider.get().get_tracer(__name__)
    provider.reset()


def test_spans_that_are_not_sampled_are_named_but_not_recorded(bentoml_tracer: Tracer) -> None:
    """BentoML's sampler would record them, for nobody; logs need their ids."""
    span = bentoml_tracer.start_span("a", Context())
    assert not span.is_recording()
    assert span.get_span_context().is_valid
    child = bentoml_tracer.start_span("a", propagate.extract({"traceparent": TRACEPARENT}))
    assert child.is_recording()
    assert format(child.get_span_context().trace_id, "032x") == TRACE
    unsampled = propagate.extract({"traceparent": TRACEPARENT.replace("-01", "-00")})
    span = bentoml_tracer.start_span("a", unsampled)
    assert not span.is_recording()
    assert format(span.get_span_context().trace_id, "032x") == TRACE


async def test_a_call_whose_client_left(runner: PythiaRunner) -> None:
    """The stream ends without its last message."""

    async def leaving(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise ConnectionResetError

    body = {"prompt": "the end", "max_tokens": 40, "ignore_eos": True, "stream": True}
    sent = [{"type": "http.request", "body": json.dumps(body).encode()}]

    async def receive() -> Any:
        return sent.pop() if sent else await asyncio.Event().wait()

    traced = Traced(runner)
    headers = [(b"traceparent", TRACEPARENT.encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}
    with pytest.raises(ConnectionResetError):
        await traced.app({**scope, "query_string": b"", "scheme": "http"}, receive, leaving)
    names = [span.name for span in traced.spans()]
    assert names[:1] == ["pythia.queue"] and names[-1] == "POST /v1/completions"
    call = traced.spans()[-1]
    assert call.attributes and call.attributes["pythia.finish_reasons"] == ("abort",)


async def test_many_prompts_have_some_spans(runner: PythiaRunner) -> None:
    traced = Traced(runner)
    await traced.post(prompt=["a"] * (MAX_TRACED + 5), max_tokens=1)
    assert len(traced.spans()) == 3 * MAX_TRACED + 1


async def test_a_refusal_is_a_call_too(runner: PythiaRunner, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "bentoml.access")
    traced = Traced(runner)
    response = await traced.post(prompt="", max_tokens=-1)
    assert response.status_code == 400
    [call] = traced.spans()
    assert call.attributes
    assert call.attributes["pythia.request_id"] == response.headers["x-request-id"]
    [record] = caplog.records
    assert record.fields["request_id"] == response.headers["x-request-id"]
    assert not [name for name in call.attributes if name.startswith("gen_ai.")]
    assert record.fields["status"] == 400 and "requests" not in record.fields
