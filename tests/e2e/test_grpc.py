"""gRPC as its users see it, beside HTTP on the same server."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import grpc
import pytest
import torch
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.serving import overhead
from bench.serving.noop_grpc import noop_server
from pythia_bento import __version__
from pythia_bento.checkpoints.bundle import find_bundled
from pythia_bento.client import AsyncClient, Client, Generation, Score, ScoreItem
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.bentoml_stub import bentoml_stub
from tests.e2e.faulty import until
from tests.e2e.serving import (
    HTTP,
    ROOT,
    START_SECONDS,
    Server,
    environment,
    free_port,
    serve,
)
from tests.later import openai

PROMPT = "Once upon a time"
OPTIONS: dict[str, Any] = {
    **{"max_tokens": 24, "temperature": 0.9, "top_p": 0.95, "seed": 11, "n": 2, "logprobs": 3}
}
LONG = {"max_tokens": 500, "n": 16, "ignore_eos": True}

# One continuation: its text, its ids, and for each token the float of its log-probability.
Answer = list[tuple[str, list[int], list[float]]]


@pytest.fixture(scope="module")
def grpc_url(server: Server) -> str:
    return f"grpc://127.0.0.1:{server.grpc_port}"


@pytest.fixture(scope="module")
def clients(server: Server, grpc_url: str) -> Iterator[dict[str, Client]]:
    with Client(server.url) as http, Client(grpc_url) as grpc:
        yield {"http": http, "grpc": grpc}


def test_one_request_by_every_client_gives_the_same_bits(
    server: Server, clients: dict[str, Client]
) -> None:
    expected = by_raw_http(server)
    assert len(expected) == 2 and len(expected[0][1]) > 5
    found = {
        "our client, HTTP": of_generation(clients["http"].generate(PROMPT, **OPTIONS)),
        "our client, gRPC": of_generation(clients["grpc"].generate(PROMPT, **OPTIONS)),
        "our async client": asyncio.run(by_async_clients(server)),
        "bentoml.SyncHTTPClient": by_bentoml(server),
        "a bentoml.grpc.v1 stub": by_bentoml_stub(server),
        "openai": by_openai(server),
    }
    for name, answer in found.items():
        assert answer == expected, name


def by_raw_http(server: Server) -> Answer:
    body = {"prompt": PROMPT, **OPTIONS}
    return of_native(HTTP.post(f"{server.url}/generate", json=body, timeout=60).json())


def by_bentoml(server: Server) -> Answer:
    with bentoml.SyncHTTPClient(server.url) as client:
        answer = of_native(client.generate(prompt=PROMPT, **OPTIONS))
        client._temp_dir.cleanup()  # which it leaves to the garbage collector, with a warning
    return answer


def by_bentoml_stub(server: Server) -> Answer:
    with (
        bentoml_stub() as (messages, services),
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        request = messages.Request(api_name="generate")
        json_format.ParseDict({"prompt": PROMPT, **OPTIONS}, request.json)
        answer = services.BentoServiceStub(channel).Call(request)
        return of_native(json_format.MessageToDict(answer.json))


def by_openai(server: Server) -> Answer:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        extra = {"return_token_ids": True}
        answer = client.completions.create(
            model="bundled", prompt=PROMPT, **OPTIONS, extra_body=extra
        )
    found: Answer = []
    for choice in answer.choices:
        assert choice.logprobs and choice.logprobs.token_logprobs
        ids = choice.model_extra["token_ids"] if choice.model_extra else []
        found.append((choice.text, ids, list(choice.logprobs.token_logprobs)))
    return found


async def by_async_clients(server: Server) -> Answer:
    async with (
        AsyncClient(server.url) as http,
        AsyncClient(f"grpc://127.0.0.1:{server.grpc_port}") as grpc,
    ):
        one, other = await asyncio.gather(
            http.generate(PROMPT, **OPTIONS), grpc.generate(PROMPT, **OPTIONS)
        )
        assert one.outputs == other.outputs
        return of_generation(one)


def of_native(body: dict[str, Any]) -> Answer:
    return [
        (output["text"], output["token_ids"], [token["logprob"] for token in output["tokens"]])
        for output in body["outputs"]
    ]


def of_generation(generation: Generation) -> Answer:
    return [
        (output.text, output.token_ids, [token.logprob for token in output.tokens])
        for output in generation.outputs
    ]


def test_everything_else_is_the_same_too(clients: dict[str, Client]) -> None:
    http, over_grpc = clients["http"], clients["grpc"]
    options: dict[str, Any] = {"prompt_logprobs": 1, "best_of": 4, "n": 2, "max_tokens": 6}
    options |= {"logit_bias": {7: -3.5}, "seed": 0}
    one, other = (client.generate(PROMPT, **options) for client in (http, over_grpc))
    assert (one.outputs, one.prompt_tokens) == (other.outputs, other.prompt_tokens)
    assert len(one.prompt_tokens) == 3
    items = [ScoreItem(PROMPT, logprobs=2), ScoreItem("Once", " upon"), ScoreItem("")]
    scores, again = http.score(items), over_grpc.score(items)
    assert scores[:2] == again[:2]
    assert isinstance(scores[0], Score) and scores[0].num_tokens == 3
    for score in (scores[2], again[2]):
        assert isinstance(score, InvalidRequest) and "prompt is empty" in score.message
    assert http.tokenize(PROMPT) == over_grpc.tokenize(PROMPT)
    assert http.detokenize([5, 6, 700]) == over_grpc.detokenize([5, 6, 700])
    assert http.info() == over_grpc.info()


def test_info_names_the_bytes(clients: dict[str, Client]) -> None:
    info = clients["grpc"].info()
    step = find_bundled("main")
    assert (info.commit, info.version, info.dtype) == (step.commit, __version__, "int8")
    assert info.files == {name: file.sha256 for name, file in step.files.items()}
    assert info.weights_sha256[:12] in info.fingerprint
    assert info.limits.context_tokens == 512


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_streams_arrive_while_they_are_made(
    clients: dict[str, Client], server: Server, transport: str
) -> None:
    before = server.metric("generation_tokens_total")
    stream = clients[transport].stream(PROMPT, **LONG)
    first = next(stream)
    assert first.summary is None and first.deltas
    stream.close()
    server.settled()
    assert server.metric("generation_tokens_total") - before < 16 * 500


def test_cancel_and_deadline_free_the_sequences_at_the_next_step(server: Server) -> None:
    request = pb.GenerateRequest(prompt={"text": PROMPT}, sampling=LONG)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub: Any = PythiaStub(channel)
        before = server.metric("generation_tokens_total")
        call = stub.Generate(request)
        next(call)
        assert server.metric("num_requests_running") == 16
        call.cancel()
        with pytest.raises(grpc.RpcError):
            list(call)
        server.settled()
        assert 0 < server.metric("generation_tokens_total") - before < 16 * 500
        assert ended_with(server, "CANCELLED")
        seconds = 0.1  # which may be over before the server hears of the call
        while not ended_with(server, "DEADLINE_EXCEEDED"):
            before = server.metric("generation_tokens_total")
            with pytest.raises(grpc.RpcError):
                list(stub.Generate(request, timeout=seconds))
            server.settled()
            assert server.metric("generation_tokens_total") - before < 16 * 500
            seconds *= 2


def ended_with(server: Server, code: str) -> bool:
    """Whether a call of Generate has."""
    page = HTTP.get(f"{server.url}/metrics").text
    return f'pythia_grpc_calls_total{{code="{code}",method="/pythia.v1.Pythia/Generate"}}' in page


async def test_overhead_is_measured(server: Server) -> None:
    torch.set_num_threads(1)
    target = f"127.0.0.1:{server.grpc_port}"
    with PythiaRunner.load(Settings(device="cpu")) as runner, noop_server() as noop:
        results = await overhead.measure(server.url, target, noop, runner, rounds=2)
    found = {(result.task, result.transport): result for result in results}
    assert len(found) == 8
    for (_, transport), result in found.items():
        assert result.p50_ms > 0
        assert transport != overhead.ENGINE or result.over_engine_ms == 0
        assert transport != overhead.NOOP or result.over_engine_ms == result.p50_ms
    assert len(overhead.table(results).splitlines()) == 9
    assert len(overhead.goals(results).splitlines()) == 3


def test_health(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "pythia.v1.Pythia", "bentoml.grpc.v1.BentoService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_log_has_calls_with_their_trace(server: Server, clients: dict[str, Client]) -> None:
    def lines() -> list[str]:
        every = server.log.read_text().splitlines()
        return [line for line in every if "path=/pythia.v1.Pythia/Tokenize" in line]

    before = len(lines())
    clients["grpc"].tokenize("a")
    until(lambda: len(lines()) > before)  # it is written after the answer
    line = lines()[-1]
    assert re.search(r" status=OK duration_ms=[\d.]+ .* \(trace=[0-9a-f]{32},", line)


def test_a_port_in_use_ends_the_start_with_one_sentence(
    server: Server, home: Path, commands: Path
) -> None:
    run = subprocess.run(
        [commands / "bentoml", "serve", "--port", str(free_port())],
        cwd=ROOT,
        env=environment(home, grpc_port=server.grpc_port),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    [line] = [line for line in run.stderr.splitlines() if line.startswith("pythia-bento: ")]
    assert f"127.0.0.1:{server.grpc_port} (PYTHIA_GRPC_HOST, PYTHIA_GRPC_PORT" in line
    assert "Traceback" not in run.stderr


@pytest.mark.long
def test_without_grpc(home: Path) -> None:
    with serve(home, grpc_port=0) as server:
        with Client(server.url) as client:
            assert client.tokenize("a")
        assert "pythia_grpc" not in HTTP.get(f"{server.url}/metrics").text
