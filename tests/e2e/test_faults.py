"""Faults injected into real servers: what clients see, and what the probes say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.serving import Server, serve

FAULTY = "tests.faults.service:Pythia"
BODY = {"prompt": "Once upon a time", "max_tokens": 40, "ignore_eos": True, "seed": 3}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where files switch faults on."""
    return tmp_path


@contextlib.contextmanager
def faulty(home: Path, place: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any):
    """A server whose kernels fail on demand."""
    monkeypatch.setenv("FAULTS", str(place))
    with serve(home, FAULTY, **settings) as server:
        yield server


def worker(server: Server) -> psutil.Process:
    """The process that holds the model."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    return max(children, key=lambda process: process.memory_info().rss)


def connections(server: Server) -> int:
    """That clients have open over HTTP."""
    port = httpx.URL(server.url).port
    found = worker(server).net_connections("tcp")
    return sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port for c in found)


def probes(server: Server) -> dict[str, int]:
    return {name: httpx.get(f"{server.url}/{name}").status_code for name in ("livez", "readyz")}


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_up(server: Server) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{server.url}/readyz", timeout=2).status_code == 200
    return False


async def all_of(server: Server, count: int, **fields: Any) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        bodies = [BODY | {"seed": i} | fields for i in range(count)]
        return await asyncio.gather(*(client.post("/v1/completions", json=b) for b in bodies))


def texts(responses: list[httpx.Response]) -> list[str]:
    assert [r.status_code for r in responses] == [200] * len(responses)
    return [r.json()["choices"][0]["text"] for r in responses]


async def test_out_of_memory_and_a_dead_engine(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(home, place, monkeypatch) as server:
        expected = texts(await all_of(server, 12))
        (place / "oom").write_text("4")  # passes of four rows or more have no memory
        assert texts(await all_of(server, 12)) == expected
        (place / "oom").write_text("1")
        [failed] = await all_of(server, 1)
        assert (failed.status_code, failed.json()["error"]["code"]) == (503, "out_of_memory")
        assert probes(server) == {"livez": 200, "readyz": 200}
        (place / "oom").unlink()
        assert texts(await all_of(server, 12)) == expected
        server.settled()

        (place / "die").touch()
        died = await all_of(server, 3)
        assert {(r.status_code, r.json()["error"]["code"]) for r in died} == {
            (503, "engine_unavailable")
        }
        assert probes(server) == {"livez": 503, "readyz": 503}
        [after] = await all_of(server, 1)
        assert after.status_code == 503
        assert "ZeroDivisionError" in after.json()["error"]["message"]


async def test_overload_is_refused_early_and_the_server_stays_ready(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "slow").write_text("0.02")
    with faulty(home, place, monkeypatch, max_batch_size=4, max_queue=8) as server:
        load = asyncio.create_task(all_of(server, 60))
        seen = set()
        while not load.done():
            seen.add((await asyncio.to_thread(probes, server))["readyz"])
        answers = await load
        assert seen == {200}
        refused = [r for r in answers if r.status_code == 429]
        assert len(refused) >= 40
        assert len(refused) + sum(r.status_code == 200 for r in answers) == 60
        for response in refused:
            assert response.json()["error"]["code"] == "overloaded"
            assert 1 <= int(response.headers["retry-after"]) <= 60
        server.settled()


async def test_sigterm_under_load_finishes_what_is_open(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "slow").write_text("0.03")
    with faulty(home, place, monkeypatch, drain_seconds=1) as server:
        load = asyncio.create_task(all_of(server, 8, max_tokens=120))
        await asyncio.to_thread(until, lambda: server.metric("num_requests_running") == 8)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(until, lambda: probes(server)["readyz"] == 503)
        assert probes(server)["livez"] == 200
        [still] = await all_of(server, 1, max_tokens=1)  # balancers have time to notice
        assert still.status_code == 200
        refused = still
        while refused.status_code == 200:
            [refused] = await all_of(server, 1, max_tokens=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
        assert "shutting down" in refused.json()["error"]["message"]
        assert not load.done()
        assert len(texts(await load)) == 8
        assert await asyncio.to_thread(server.process.wait, 30) == 0


async def test_sigterm_spares_an_engine_in_a_process_of_its_own(home: Path) -> None:
    with serve(home, engine_process=True) as server:
        load = asyncio.create_task(all_of(server, 8, max_tokens=450))
        await asyncio.to_thread(until, lambda: server.metric("num_requests_running") > 0)
        server.process.send_signal(signal.SIGTERM)  # its supervisor sends it to all processes
        assert len(texts(await load)) == 8
        assert await asyncio.to_thread(server.process.wait, 30) == 0


async def test_the_clock_may_jump(home: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "slow").write_text("0.01")
    with faulty(
        home, place, monkeypatch, request_timeout=60, key_requests_per_minute=600
    ) as server:
        expected = texts(await all_of(server, 4))
        for day in ("86400", "-86400"):
            load = asyncio.create_task(all_of(server, 4))
            await asyncio.to_thread(until, lambda: server.metric("num_requests_running") > 0)
            (place / "clock").write_text(day)
            answers = await load
            assert texts(answers) == expected
            [after] = await all_of(server, 1)
            assert abs(after.json()["created"] - time.time() - float(day)) < 3600
            assert probes(server) == {"livez": 200, "readyz": 200}
        server.settled()


async def test_no_room_for_the_log(home: Path) -> None:
    with serve(home) as server:
        main = psutil.Process(server.process.pid)
        expected = texts(await all_of(server, 8))
        for process in (main, *main.children(recursive=True)):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        before = server.log.stat().st_size
        assert texts(await all_of(server, 8)) == expected
        bad = httpx.post(f"{server.url}/v1/completions", json={"prompt": 7})
        assert bad.status_code == 400
        assert probes(server) == {"livez": 200, "readyz": 200}
        server.settled()
        assert server.log.stat().st_size == before


async def test_sigkill_of_the_worker_is_followed_by_a_new_one(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "slow").write_text("0.02")
    with faulty(home, place, monkeypatch) as server:
        load = asyncio.create_task(all_of(server, 3, max_tokens=200))
        await asyncio.to_thread(until, lambda: server.metric("num_requests_running") == 3)
        worker(server).kill()
        with pytest.raises(httpx.TransportError):
            await load
        (place / "slow").unlink()
        await asyncio.to_thread(until, lambda: is_up(server))
        assert len(texts(await all_of(server, 3))) == 3
        server.settled()


def stalled(server: Server, **fields: Any) -> socket.socket:
    """A client that asks for a stream and does not read it."""
    body = json.dumps(BODY | {"stream": True} | fields).encode()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(("127.0.0.1", httpx.URL(server.url).port))
    head = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
    client.sendall(head + body)
    return client


@pytest.fixture(scope="module")
def impatient(home: Path) -> Iterator[Server]:
    """Gives clients two seconds."""
    with serve(home, client_timeout=2) as server:
        yield server


async def test_slow_readers_are_cut_off_and_disturb_nobody(impatient: Server) -> None:
    expected = texts(await all_of(impatient, 4))
    await asyncio.to_thread(until, lambda: connections(impatient) == 0)
    much = {"max_tokens": 500, "n": 20, "logprobs": 20}
    clients = [stalled(impatient, **much) for _ in range(3)]
    try:
        await asyncio.to_thread(until, lambda: connections(impatient) >= 3)
        assert texts(await all_of(impatient, 4)) == expected
        await asyncio.to_thread(until, lambda: connections(impatient) == 0)
        impatient.settled()
        for client in clients:
            client.setblocking(False)
            with pytest.raises(ConnectionError):
                while client.recv(1 << 20):
                    pass
    finally:
        for client in clients:
            client.close()


async def test_half_open_connections(impatient: Server) -> None:
    port = httpx.URL(impatient.url).port
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    half = socket.create_connection(("127.0.0.1", port))
    try:
        half.sendall(b"POST /generate HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n{")
        assert len(texts(await all_of(impatient, 4))) == 4
        answer = await asyncio.to_thread(half.recv, 4096)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"within 2 seconds" in answer + await asyncio.to_thread(half.recv, 4096)
    finally:
        for client in (half, *silent):
            client.close()
    impatient.settled()
