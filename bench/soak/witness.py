"""Who watches a server that is attacked: processes that ask it, and a thread that weighs it."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from bench.serving.server import HOST, Server
from pythia_bento.client import AsyncClient
from pythia_bento.errors import PythiaError

EVERY = 0.02  # seconds between questions whether the server lives
# Of the processes, so that none has to import them itself: the first brings torch.
PRELOADED = ["bench.common.machine", "bench.soak.attacks", "bench.soak.witness"]
PAUSE = 0.05  # seconds between the honest caller's requests over one transport
TOKENS = 2  # of each: what counts is the first


@dataclass(frozen=True, slots=True)
class Sample:
    """One question of a witness."""

    at: float  # time.monotonic() when it was asked
    seconds: float  # to the answer, or its first token
    kind: str  # "ok", or why there is none
    transport: str = "http"  # or "grpc"


@dataclass(frozen=True, slots=True)
class Weight:
    """What a server's processes held at a time."""

    at: float  # time.monotonic()
    bytes: float


@contextmanager
def memory_of(server: Server) -> Iterator[list[Weight]]:
    """Weighs it ten times a second; the last one is of now."""
    found = [Weight(time.monotonic(), _rss(server))]
    ended = Event()

    def watch() -> None:
        while not ended.wait(0.1):
            found.append(Weight(time.monotonic(), _rss(server)))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _rss(server: Server) -> float:
    """Of all processes of the server."""
    main = psutil.Process(server.process.pid)
    return float(sum(one.memory_info().rss for one in (main, *main.children(recursive=True))))


@contextmanager
def process(run: Any, *arguments: Any) -> Iterator[Connection]:
    """A process of its own, which is there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe()
    there = context.Process(target=run, args=(theirs, *arguments))
    there.start()
    ours.recv()
    try:
        yield ours
    finally:
        there.join()


@contextmanager
def witness(run: Any, *arguments: str) -> Iterator[list[Sample]]:
    """Its samples are here at the end."""
    samples: list[Sample] = []
    with process(run, *arguments) as pipe:
        try:
            yield samples
        finally:
            pipe.send("end")
            samples += pipe.recv()


def livez(pipe: Connection, url: str) -> None:
    samples: list[Sample] = []
    with httpx.Client(base_url=url, timeout=60) as client:
        pipe.send("here")
        while not pipe.poll(EVERY):
            at, kind = time.monotonic(), "ok"
            try:
                answer = client.get("/livez")
                kind = "ok" if answer.is_success else str(answer.status_code)
            except httpx.HTTPError as error:
                kind = type(error).__name__
            samples.append(Sample(at, time.monotonic() - at, kind))
    pipe.send(samples)


def honest(pipe: Connection, url: str, grpc_target: str, key: str) -> None:
    asyncio.run(_prepare())
    pipe.send("here")
    pipe.send(asyncio.run(_ask(pipe, [url, f"grpc://{grpc_target}"], key)))


async def _prepare() -> None:
    """What a client's own process imports and reads at its first request is not the server's."""
    with socket.socket() as deaf:
        deaf.bind((HOST, 0))  # and nobody listens
        where = f"{HOST}:{deaf.getsockname()[1]}"
        for url in (f"http://{where}", f"grpc://{where}"):
            async with AsyncClient(url, timeout=60) as client:
                await _one(client, urlsplit(url).scheme)


async def _ask(pipe: Connection, urls: Sequence[str], key: str) -> list[Sample]:
    """One request at a time over each transport."""
    samples: list[Sample] = []

    async def ask(url: str) -> None:
        async with AsyncClient(url, api_key=key, timeout=60) as client:
            while not pipe.poll():
                samples.append(await _one(client, urlsplit(url).scheme))
                await asyncio.sleep(PAUSE)

    await asyncio.gather(*map(ask, urls))
    return samples


async def _one(client: AsyncClient, transport: str) -> Sample:
    at, kind, first = time.monotonic(), "ok", None
    try:
        async for _ in client.stream([5, 6, 7], max_tokens=TOKENS, ignore_eos=True):
            first = first or time.monotonic()
    except PythiaError as error:
        kind = error.code
    return Sample(at, (first or time.monotonic()) - at, kind, transport)
