"""The routes that show the inside of a model, over the bundled one, and a slow client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, MutableMapping
from typing import Any

import httpx
import numpy as np
import safetensors
import safetensors.numpy
import torch
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.http import native, openai
from pythia_bento.server.http.access import AccessMiddleware
from pythia_bento.server.http.body import RequestMiddleware
from pythia_bento.settings import Settings
from tests.unit.runtime.toy_runner import settled

SMALL = {"device": "cpu", "max_batch_size": 8, "kv_cache_gb": 0.02, "capture_gb": 0.02}
LAYERS, WIDTH, HEADS, INNER = 3, 128, 4, 512  # of bundled
MAX_BODY, MAX_TENSORS = 100_000, 200_000


def settings(**more: Any) -> Settings:
    sizes = {"max_capture_bytes": 4_000_000, "max_tensor_bytes": MAX_TENSORS}
    return Settings(**{**SMALL, "max_body_bytes": MAX_BODY, **sizes, **more})


@contextlib.contextmanager
def shown(**more: Any) -> Iterator[PythiaRunner]:
    """It alone, on one thread."""
    torch.set_num_threads(1)
    with PythiaRunner.load(settings(**more)) as runner:
        yield runner
        settled(runner)


def app_of(runner: PythiaRunner) -> ASGIApp:
    v1, root = openai.create_app(), native.create_app()
    v1.state.runner = root.state.runner = runner
    whole = Starlette(routes=[Mount("/v1", v1), Mount("/", root)])
    access = AccessControl.from_settings(runner.settings)
    access.check_room = runner.check_room
    bodies = RequestMiddleware(whole, MAX_BODY, access.bodies, 60, MAX_TENSORS)
    return AccessMiddleware(bodies, access)


def client_of(runner: PythiaRunner) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app_of(runner))
    return httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60)


class File:
    """An answer of ``/v1/activations``."""

    def __init__(self, data: bytes) -> None:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        self.metadata: dict[str, str] = header.pop("__metadata__")
        self.dtypes = {name: field["dtype"] for name, field in header.items()}
        self.tensors: dict[str, np.ndarray] = {}
        for name, facts in safetensors.deserialize(data):
            kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I32": "<i4"}[facts["dtype"]]
            self.tensors[name] = np.frombuffer(facts["data"], kind).reshape(facts["shape"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def text(self, name: str) -> Any:
        return json.loads(self.metadata[name])


async def asked(
    http: httpx.AsyncClient, tensors: dict[str, np.ndarray] | None = None, **body: Any
) -> File:
    answer = await post(http, tensors, **body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/vnd.safetensors"
    assert int(answer.headers["content-length"]) == len(answer.content)
    return File(answer.content)


async def post(
    http: httpx.AsyncClient, tensors: dict[str, np.ndarray] | bytes | None = None, **body: Any
) -> httpx.Response:
    if tensors is None:
        return await http.post("/v1/activations", json=body)
    data = tensors if isinstance(tensors, bytes) else safetensors.numpy.save(tensors)
    files = {"request": (None, json.dumps(body)), "tensors": ("tensors", data)}
    return await http.post("/v1/activations", files=files)


class Reader:
    """An ASGI client that takes one message at a time, where it is told to."""

    def __init__(self, runner: PythiaRunner, body: dict[str, Any]) -> None:
        self._body = json.dumps(body).encode()
        self.messages: list[MutableMapping[str, Any]] = []
        self.may_read = asyncio.Semaphore(0)
        self.leaves = asyncio.Event()
        scope = {
            **{"type": "http", "method": "POST", "path": "/v1/activations", "root_path": ""},
            **{"raw_path": b"/v1/activations", "query_string": b"", "headers": []},
        }
        self.task = asyncio.ensure_future(app_of(runner)(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            body, self._body = self._body, b""
            return {"type": "http.request", "body": body}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self.may_read.acquire()
        self.messages.append(message)


async def reached(is_so: Any, seconds: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def bits(array: np.ndarray) -> list[int]:
    return array.astype("<f4").view("<u4").ravel().tolist()
