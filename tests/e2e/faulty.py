"""Servers whose kernels fail on demand, and requests whose answers are known."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import psutil

from tests.e2e.serving import HTTP, Server, serve

FAULTY = "tests.faults.service:Pythia"
BODY = {
    "prompt": "Once upon a time",
    "max_tokens": 40,
    "ignore_eos": True,
    "seed": 3,
    "logprobs": 2,
}


@contextlib.contextmanager
def faulty(home: Path, place: Path, **settings: Any) -> Iterator[Server]:
    """A server that looks into ``place`` for the files that switch faults on."""
    with mock.patch.dict(os.environ, FAULTS=str(place)), serve(home, FAULTY, **settings) as server:
        yield server


def worker(server: Server) -> psutil.Process:
    """The process that holds the model."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    return max(children, key=lambda process: process.memory_info().rss)


def switch(place: Path, fault: str, value: object = "") -> None:
    """Have ``failing`` do it from now on; it never sees half of a value."""
    new = place / f"new {fault}"
    new.write_text(str(value))
    new.replace(place / fault)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_up(server: Server) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return HTTP.get(f"{server.url}/readyz").status_code == 200
    return False


async def running(server: Server, count: int = 1) -> None:
    """Wait until so many sequences are computed."""
    await asyncio.to_thread(until, lambda: server.metric("num_requests_running") >= count)


async def all_of(server: Server, count: int, **fields: Any) -> list[httpx.Response]:
    """Answers to so many completions at a time; equal ones for equal arguments."""
    options: Any = {"limits": httpx.Limits(max_connections=count), "verify": False}  # no TLS here
    async with httpx.AsyncClient(base_url=server.url, timeout=120, **options) as client:
        bodies = [BODY | {"seed": i} | fields for i in range(count)]
        return await asyncio.gather(*(client.post("/v1/completions", json=b) for b in bodies))


def choices(responses: list[httpx.Response]) -> list[Any]:
    """Texts, tokens and log-probabilities: all that must not depend on a fault beside it."""
    assert [r.status_code for r in responses] == [200] * len(responses)
    return [r.json()["choices"] for r in responses]


def failure(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]
