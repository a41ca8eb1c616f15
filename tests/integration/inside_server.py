"""One checkpoint behind both transports, for tests of what shows its inside."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import torch

from pythia_bento.client import http_messages
from pythia_bento.client.inside import activations_of
from pythia_bento.protocol.activations import Activations
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.unit.conftest import app_of

SETTINGS: dict[str, Any] = {
    **{"model": "bundled@step3000", "device": "cpu", "max_batch_size": 8},
    **{"kv_cache_gb": 0.05, "default_seed": 0, "client_timeout": 5},
}


@contextlib.contextmanager
def bundled(**settings: Any) -> Iterator[PythiaRunner]:
    """It alone, on one thread."""
    torch.set_num_threads(1)
    with PythiaRunner.load(Settings(**SETTINGS | settings)) as runner:
        yield runner


@contextlib.asynccontextmanager
async def over_http(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    """Who asks its routes, without a socket."""
    transport = httpx.ASGITransport(app_of(runner))
    async with httpx.AsyncClient(transport=transport, base_url="http://test/v1") as client:
        yield client


async def by_http(http: httpx.AsyncClient, asked: dict[str, Any]) -> Activations:
    """What the client reads of the answer to the same question over HTTP."""
    operation = http_messages.activations(activations_of(**arguments(asked)))
    if isinstance(operation.request, dict):
        answer = await http.post("/activations", files=operation.request)
    else:
        answer = await http.post("/activations", content=operation.request)
    assert answer.status_code == 200, answer.text
    return operation.result(bytearray(answer.content))


def arguments(asked: dict[str, Any]) -> dict[str, Any]:
    """Of ``activations_of``."""
    named = {"interventions": (), "logits": None, "dtype": "float32", "model": None}
    known = {name: asked.get(name, default) for name, default in named.items()}
    options = {n: v for n, v in asked.items() if n not in (*named, "prompts", "capture")}
    rest = {"names": "transformer-lens", "options": options}
    return {"prompts": asked["prompts"], "capture": asked["capture"], **known, **rest}
