"""Metrics, traces and logs of a real server, with its engine in its process and in another."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from tests.e2e.serving import HTTP, ROOT, Server, serve
from tests.promtool import check_metrics

KEY = "a-long-enough-key-for-alice-0123456789"
BOB = "a-long-enough-key-for-bob-9876543210"
SECRET = "Zanzibar"  # in every prompt and every bad body
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@dataclass
class Collector:
    """Takes spans by OTLP over HTTP, as a collector does."""

    spans: list[Span] = field(default_factory=list)

    def of(self, trace: str, names: set[str], seconds: float = 120) -> dict[str, Span]:
        """The spans of a trace by name, once those that are named are there."""
        end = time.monotonic() + seconds
        while True:
            found = {span.name: span for span in self.spans if span.trace_id.hex() == trace}
            if names <= found.keys():
                return found
            assert time.monotonic() < end, found.keys()
            time.sleep(0.05)


@dataclass
class Observed:
    """A server that has answered a number of calls, and what it said of them."""

    server: Server
    collector: Collector
    page: str

    def lines(self) -> list[dict[str, Any]]:
        """Of the log, those that are JSON."""
        lines = self.server.log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line[0] == "{" and line[-1] == "\n"]

    def calls(self, request_id: str, count: int, seconds: float = 60) -> list[dict[str, Any]]:
        """The lines of so many calls, each of which is written when its answer has left."""
        end = time.monotonic() + seconds
        while True:
            lines = [line for line in self.lines() if line["logger"] == "bentoml.access"]
            found = [line for line in lines if line["request_id"] == request_id]
            if len(found) == count:
                return found
            assert time.monotonic() < end, found
            time.sleep(0.05)

    def call(self, request_id: str) -> dict[str, Any]:
        """The one line of a call."""
        [line] = self.calls(request_id, 1)
        return line

    def first_output(self, request_id: str) -> float:
        """When the engine's first output of a call came, in seconds since some time."""
        line = self.call(request_id)
        ended = datetime.fromisoformat(line["time"].rstrip("Z")).timestamp()
        return ended - (line["duration_ms"] - line["first_output_ms"]) / 1e3


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, int]]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found.spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found, server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="one process"),
        pytest.param(True, id="two processes", marks=pytest.mark.long),
    ],
)
def observed(
    request: pytest.FixtureRequest, home: Path, collector: tuple[Collector, int]
) -> Iterator[Observed]:
    spans, port = collector
    spans.spans.clear()
    config = home / "observed.yaml"
    config.write_text(documented_config(port))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_CONFIG", str(config))
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        keys = f"alice {KEY}, bob {BOB}"
        settings = {"log_format": "json", "api_keys": keys, "metrics_prefix": "vllm:"}
        with serve(home, is_measured=True, engine_process=request.param, **settings) as server:
            ask(server)
            yield Observed(server, spans, HTTP.get(f"{server.url}/metrics").text)


def documented_config(port: int) -> str:
    """The document's, to our collector; of no calls but those whose caller traces."""
    document = (ROOT / "docs" / "observability.md").read_text()
    [config] = re.findall(r"^```yaml\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    for written, used in (("collector:4318", f"127.0.0.1:{port}"), ("0.01", "0.0")):
        assert written in config
        config = config.replace(written, used)
    return config


def ask(server: Server) -> None:
    """Some calls of every kind."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        body = {"prompt": f"In {SECRET} they", "max_tokens": 5, "ignore_eos": True}
        headers = {"traceparent": TRACEPARENT, "X-Request-Id": "http-1"}
        for stream in (False, True):
            headers["X-Request-Id"] = f"http-{stream:d}"
            answer = client.post("/v1/completions", json=body | {"stream": stream}, headers=headers)
            assert (answer.status_code, answer.headers["x-request-id"]) == (200, f"http-{stream:d}")
        two = {"items": [{"prompt": f"{SECRET} a"}, {"prompt": f"{SECRET} b c"}]}
        assert client.post("/score", json=two, headers={"X-Request-Id": "score"}).status_code == 200
        wrong = {"X-Request-Id": "wrong"}
        assert client.post("/generate", json={"prompt": {SECRET: 1}}, headers=wrong).is_error
        assert client.post("/score", json={"items": SECRET}, headers=wrong).is_error
        assert client.post("/generate", content=f'{{"{SECRET}'.encode(), headers=wrong).is_error
        refused = client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}x"} | wrong)
        assert (refused.status_code, refused.headers["x-request-id"]) == (401, "wrong")
        for number in range(20):
            assert client.get(f"/made-up/{number}").status_code == 404
    metadata = (
        *(("authorization", f"Bearer {KEY}"), ("x-request-id", "grpc-1")),
        ("traceparent", TRACEPARENT.replace(TRACE, TRACE[::-1])),
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        request = pb.GenerateRequest(
            prompt=pb.Prompt(text=f"In {SECRET} they"),
            sampling=pb.Sampling(max_tokens=3, ignore_eos=True),
        )
        assert list(PythiaStub(channel).Generate(request, metadata=metadata))


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_page(observed: Observed) -> None:
    # Its linter keeps colons for recording rules.
    check_metrics(observed.page.replace("vllm:", "vllm_"))


def test_the_page_has_what_dashboards_of_processes_and_of_vllm_ask_for(observed: Observed) -> None:
    families = {family.name for family in text_string_to_metric_families(observed.page)}
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= families
    assert not [name for name in families if name.startswith("python_")]
    labels = r'\{engine="0",model_name="bundled@step\d+"\}'
    for name in ("num_requests_waiting", "kv_cache_usage_perc", "prompt_tokens_total"):
        assert re.search(rf"^vllm:{name}{labels} [\d.]+$", observed.page, re.M), name


def test_the_page_has_what_the_document_says(observed: Observed) -> None:
    document = (ROOT / "docs" / "observability.md").read_text()
    rows = re.findall(r"^\| `(pythia_\w+?)(?:\{[\w,]+\})?` \|", document, re.MULTILINE)
    families = {family.name for family in text_string_to_metric_families(observed.page)}
    ours = {name for name in families if name.startswith("pythia_")}
    assert ours == {name.removesuffix("_total") for name in rows}


def test_requests_are_counted_and_timed(observed: Observed) -> None:
    metric = observed.server.metric
    generating, whole = 4, 6  # with the one that warms up; the others are scores
    assert metric("time_to_first_token_seconds_count") == generating
    assert metric("e2e_request_latency_seconds_count") == whole
    assert metric("inter_token_latency_seconds_count") == 4 + 4 + 2
    parts = [f"request_{part}_time_seconds_sum" for part in ("queue", "prefill", "decode")]
    total = metric("e2e_request_latency_seconds_sum")
    assert 0 < sum(map(metric, parts)) <= total * 1.000001
    assert all(metric(part) > 0 for part in parts)
    assert metric("batch_size_count") == metric("steps_total") > 0
    assert metric("num_requests_running") == metric("kv_cache_usage_perc") == 0
    assert re.search(r'^pythia_model_info\{.*model="bundled@step\d+".*\} 1.0$', observed.page, re.M)


def test_made_up_paths_add_nothing(observed: Observed) -> None:
    labels = set(re.findall(r'endpoint="(.*?)"', observed.page))
    assert "other" in labels and "/v1/completions" in labels
    assert not [label for label in labels if "made-up" in label]


def test_calls_are_lines_of_json(observed: Observed) -> None:
    plain, streamed, score, call = map(observed.call, ("http-0", "http-1", "score", "grpc-1"))
    assert plain["trace_id"] == streamed["trace_id"] == TRACE
    assert call["trace_id"] == TRACE[::-1]
    for line in (plain, streamed):
        assert (line["path"], line["status"]) == ("/v1/completions", 200)
        assert (line["generated_tokens"], line["finish_reasons"]) == (5, ["length"])
    assert (call["transport"], call["status"], call["generated_tokens"]) == ("grpc", "OK", 3)
    assert (score["requests"], score["generated_tokens"]) == (2, 0) and score["prompt_tokens"] > 2
    assert {line["caller"] for line in (plain, streamed, score, call)} == {"alice"}
    # A line is written when its answer has left; the next call may be quicker.
    wrong = observed.calls("wrong", 4)
    assert sorted(line["status"] for line in wrong) == [400, 400, 400, 401]


def test_logs_have_no_prompts_and_no_keys(observed: Observed) -> None:
    log = observed.server.log.read_text()
    assert "bentoml.access" in log
    assert SECRET not in log and KEY not in log


@pytest.mark.parametrize("trace", [TRACE, TRACE[::-1]], ids=["http", "grpc"])
def test_spans_reach_a_collector(observed: Observed, trace: str) -> None:
    phases = {"pythia.queue", "pythia.prefill", "pythia.decode"}
    found = observed.collector.of(trace, phases)
    [name] = found.keys() - phases
    assert name in ("POST /v1/completions", "pythia.v1.Pythia/Generate")
    assert found[name].parent_span_id.hex() == PARENT
    said = {each.key: each.value for each in found[name].attributes}
    assert said["gen_ai.operation.name"].string_value == "text_completion"
    assert re.fullmatch(r"bundled@step\d+", said["gen_ai.response.model"].string_value)
    assert said["gen_ai.usage.output_tokens"].int_value in (3, 5)
    assert "gen_ai.request.seed" in said
    spans = [span for span in observed.collector.spans if span.trace_id.hex() == trace]
    servers = {span.span_id for span in spans if span.name == name}
    assert {span.parent_span_id for span in spans if span.name in phases} <= servers
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)


def test_calls_that_nobody_traces_are_not_exported(observed: Observed) -> None:
    observed.collector.of(TRACE[::-1], {"pythia.decode"})  # the last call of all
    assert {span.trace_id.hex() for span in observed.collector.spans} == {TRACE, TRACE[::-1]}


async def test_scores_of_two_keys_take_turns(observed: Observed) -> None:
    """The one that asked for little need not wait for all that the other one asked for."""
    text = "and so on " * 120  # about as many tokens as a step has

    async def post(client: httpx.AsyncClient, id: str, count: int, key: str = KEY) -> None:
        headers = {"Authorization": f"Bearer {key}", "X-Request-Id": id}
        items = [{"prompt": f"{id} {number} {text}"} for number in range(count)]
        answer = await client.post("/score", json={"items": items}, headers=headers)
        assert {len(item) for item in answer.json()} == {4}, answer.text

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=observed.server.url, timeout=300, limits=limits
    ) as client:
        before = asyncio.create_task(post(client, "before", 80))
        while not await asyncio.to_thread(observed.server.metric, "num_requests_waiting"):
            await asyncio.sleep(0.01)
        alices = [asyncio.create_task(post(client, f"alice-{i}", 1)) for i in range(20)]
        await asyncio.sleep(0)
        await post(client, "bob", 1, BOB)
        before.cancel()  # what is left of it would tell nothing more
        await asyncio.gather(before, *alices, return_exceptions=True)
        assert all(alice.exception() is None for alice in alices)
    order = sorted(["bob", *(f"alice-{i}" for i in range(20))], key=observed.first_output)
    assert order.index("bob") < 5
