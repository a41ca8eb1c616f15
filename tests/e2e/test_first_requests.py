"""The first request of each kind finds everything there: nothing is imported while it waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pythia_bento.client import Client, ScoreItem, StructuredOutputs
from tests.e2e.serving import BENTOML, HTTP, ROOT, Server, serve

BODIES: dict[str, dict[str, Any]] = {
    "/generate": {"prompt": "a", "max_tokens": 2},
    "/generate_stream": {"prompt": "a", "max_tokens": 2},
    "/score": {"items": [{"prompt": "ab", "logprobs": 1}]},
    "/v1/completions": {"prompt": "a", "max_tokens": 2, "echo": True, "logprobs": 2},
    "/v1/embeddings": {"input": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/nowhere": {},
}
PAGES = (
    *("/", "/docs", "/docs.json", "/playground", "/playground/steps.js", "/steps", "/favicon.ico"),
    *("/v1/models", "/livez", "/readyz", "/metrics", "/nowhere"),
)
# Beside a server; says what it imported between its first word and its last, and what it saw.
WITNESS = """
import json, sys
from bench.soak.witness import honest

class Pipe:
    polls = 0
    def poll(self):
        self.polls += 1
        return self.polls > 20
    def send(self, what):
        if what == "here":
            self.known = set(sys.modules)
        else:
            kinds = sorted({(sample.transport, sample.kind) for sample in what})
            print(json.dumps([sorted(set(sys.modules) - self.known), kinds]))

honest(Pipe(), *sys.argv[1:])
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server has imported since it is ready."""
    return tmp_path_factory.mktemp("imports") / "found"


@pytest.fixture(scope="module")
def fresh(home: Path, imports: Path) -> Iterator[Server]:
    """One that nobody has asked for anything yet."""
    said = mock.patch.dict(os.environ, IMPORTS=str(imports))
    # A process of its own: a fork would have everything imported.
    with said, serve(home, "tests.faults.imports:Pythia", bentoml=[BENTOML]) as server:
        yield server


@pytest.fixture
def late(fresh: Server, imports: Path) -> Callable[[], list[str]]:
    """The modules that were imported since the test began."""
    before = imports.stat().st_size

    def found() -> list[str]:
        return imports.read_bytes()[before:].decode().split()

    return found


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_each_call(transport: str, fresh: Server, late: Callable[[], list[str]]) -> None:
    url = fresh.url if transport == "http" else f"grpc://127.0.0.1:{fresh.grpc_port}"
    sampled = {"temperature": 1.0, "seed": 3, "top_p": 0.9, "stop": ["x"], "logprobs": 1}
    with Client(url) as client:
        client.generate("some text", max_tokens=2, n=2, **sampled)
        list(client.stream("some text", max_tokens=2))
        client.generate("a", max_tokens=2, structured_outputs=StructuredOutputs(regex="[a-z]+"))
        client.score([ScoreItem("some text")])
        list(client.sweep(["some text"], models=["bundled"]))
        client.activations("some text", capture="hook_embed")
        client.detokenize(client.tokenize("some text"))
        client.info(), client.models()
    assert late() == []


def test_each_body_and_page(fresh: Server, late: Callable[[], list[str]]) -> None:
    for path, body in BODIES.items():
        assert HTTP.post(fresh.url + path, json=body).status_code in (200, 400, 404)
    streamed = {"prompt": "a", "max_tokens": 2, "stream": True}
    assert "[DONE]" in HTTP.post(f"{fresh.url}/v1/completions", json=streamed).text
    assert HTTP.post(f"{fresh.url}/v1/activations", files={"a": b"b"}).status_code == 400
    for path in PAGES:
        assert HTTP.get(fresh.url + path).status_code in (200, 404)
    assert late() == []


def test_health_over_grpc(fresh: Server, late: Callable[[], list[str]]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{fresh.grpc_port}") as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert late() == []


def test_the_benchmarks_witness_imports_nothing_either(fresh: Server) -> None:
    """It did at its first request: 0.4 s that were taken for the server's."""
    where = (fresh.url, f"127.0.0.1:{fresh.grpc_port}", "no key")
    command = [sys.executable, "-c", WITNESS, *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], [["grpc", "ok"], ["http", "ok"]]]
