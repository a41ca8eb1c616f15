from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.serving.client import Job, run, run_all

HOST = "127.0.0.1"


@asynccontextmanager
async def server(*, short: int = 0) -> AsyncIterator[tuple[int, list[dict]]]:
    """Answers as the service does, with ``short`` tokens too few; notes the bodies."""
    bodies: list[dict] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            bodies.append(body)
            used = body["max_tokens"] - short
            (_stream if body.get("stream") else _plain)(writer, used)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, HOST, 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], bodies


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _plain(writer: asyncio.StreamWriter, used: int) -> None:
    body = b'{"choices":[],"usage":{"completion_tokens":%d}}' % used
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def _stream(writer: asyncio.StreamWriter, used: int) -> None:
    events = [b'{"choices":[{"index":0,"text":"a"}],"usage":null}'] * 2
    events += [b'{"choices":[],"usage":{"completion_tokens":%d}}' % used, b"[DONE]"]
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for event in [b"data: " + event + b"\n\n" for event in events]:
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
    writer.write(b"0\r\n\r\n")


def job(transport: str, port: int, **changes: int) -> Job:
    fields = {"clients": 3, "rounds": 2, "prompt": 5, "new": 4, "vocabulary": 9, "seed": 0}
    return Job(transport, HOST, port, **(fields | changes))


@pytest.mark.parametrize("transport", ["http", "http-stream"])
async def test_all_requests_are_sent_and_timed(transport: str) -> None:
    async with server() as (port, bodies):
        timings = await run(job(transport, port))
    assert len(timings) == len(bodies) == 6
    assert len({tuple(body["prompt"]) for body in bodies}) == 6
    for body in bodies:
        assert len(body["prompt"]) == 5
        assert set(body["prompt"]) <= set(range(1, 10))
        assert (body["max_tokens"], body["temperature"], body["ignore_eos"]) == (4, 0, True)
    for timing in timings:
        assert timing.tokens == 4
        assert timing.start < timing.end
        assert bool(timing.arrivals) == (transport == "http-stream")


@pytest.mark.parametrize("transport", ["http", "http-stream"])
async def test_an_answer_with_too_few_tokens_is_an_error(transport: str) -> None:
    async with server(short=1) as (port, _):
        with pytest.raises(RuntimeError, match="not an answer of 4 tokens"):
            await run(job(transport, port, clients=1))


def test_processes_share_the_clients_with_seeds_of_their_own() -> None:
    parts = job("http", 1, clients=7, seed=5).shared(3, rounds=1)
    assert [part.clients for part in parts] == [3, 2, 2]
    assert [part.seed for part in parts] == [5, 6, 7]
    assert {(part.rounds, part.prompt) for part in parts} == {(1, 5)}
    assert len(job("http", 1, clients=2).shared(4)) == 2


async def test_clients_run_in_processes_of_their_own() -> None:
    async with server() as (port, bodies):
        jobs = [job("http", port, seed=seed) for seed in (1, 2)]
        timings = await asyncio.to_thread(run_all, jobs)
    assert len(timings) == len(bodies) == 12
    assert all(timing.tokens == 4 for timing in timings)


async def test_an_answer_larger_than_a_pipe_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    async with server() as (port, _):
        timings = await asyncio.to_thread(run_all, [job("http", port, rounds=500)])
    assert len(timings) >= 500
    assert sum(len(repr(timing)) for timing in timings) > 65536


async def test_a_failing_process_is_an_error() -> None:
    async with server(short=1) as (port, _):
        with pytest.raises(RuntimeError, match="a client failed"):
            await asyncio.to_thread(run_all, [job("http", port)])
