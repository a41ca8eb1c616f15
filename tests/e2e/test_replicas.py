"""Two engines behind one front: engines that are killed or hang, and not one failed request."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.faulty import all_of, choices, running, until
from tests.e2e.serving import HTTP, START_SECONDS, Server, serve

REQUESTS, CLIENTS = 400, 8
STALL_SECONDS = 15  # a busy machine's engines make a step in less
SETTINGS = {"devices": "cpu:2", "stall_seconds": STALL_SECONDS, "drain_seconds": 2}


@pytest.fixture(scope="module")
def replicas(home: Path) -> Iterator[Server]:
    with serve(home, **SETTINGS) as server:
        yield server


def engines(server: Server) -> list[psutil.Process]:
    """In the order in which they were started."""
    processes = psutil.Process(server.process.pid).children(recursive=True)
    found = [p for p in processes if any("spawn_main" in part for part in p.cmdline())]
    return sorted(found, key=lambda process: process.create_time())


def total(server: Server, family: str) -> float:
    """Of all samples of a family."""
    lines = HTTP.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(family))


def body(number: int) -> dict[str, Any]:
    """Some are short, some long, some streams; their answers depend on their seeds."""
    return {
        "prompt": f"Once upon a time number {number % 50}",
        "max_tokens": 8 + 5 * (number % 20),
        "seed": number % 50,
        "temperature": 0.8,
        "logprobs": 2 if number % 4 == 0 else None,
        "stream": number % 3 == 0,
    }


def told(answer: httpx.Response) -> tuple[int, Any]:
    """Status, and what is the same of the same question."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]", answer.text
        parts = [httpx.Response(200, text=line).json()["choices"][0] for line in lines[:-1]]
        return answer.status_code, "".join(part["text"] for part in parts)
    return answer.status_code, answer.json()["choices"]


async def ask_all(server: Server, meanwhile: Callable[[], None] = lambda: None) -> list[Any]:
    """All answers, asked by some clients, while something happens on a thread."""
    found: dict[int, Any] = {}
    numbers = iter(range(REQUESTS))

    async def client() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as http:
            for number in numbers:
                found[number] = told(await http.post("/v1/completions", json=body(number)))

    await asyncio.gather(*(client() for _ in range(CLIENTS)), asyncio.to_thread(meanwhile))
    return [found[number] for number in range(REQUESTS)]


@pytest.mark.long
async def test_killing_an_engine_twice_fails_no_request(replicas: Server, server: Server) -> None:
    expected = await ask_all(server)
    assert {status for status, _ in expected} == {200}
    assert await ask_all(replicas) == expected

    def kill_twice() -> None:
        for count in (1, 2):
            until(lambda: replicas.metric("num_requests_running") > 2)
            engines(replicas)[-1].kill()
            until(lambda: total(replicas, "pythia_replica_restarts_total") == count, START_SECONDS)  # noqa: B023

    assert await ask_all(replicas, kill_twice) == expected
    assert total(replicas, "pythia_replica_ends_total") == 2
    assert total(replicas, "pythia_repeated_requests_total") >= 1
    assert HTTP.get(f"{replicas.url}/readyz").status_code == 200
    assert total(replicas, "pythia_replica_up") == 2
    replicas.settled()


@pytest.mark.long
async def test_an_engine_that_hangs_is_replaced(replicas: Server) -> None:
    before = total(replicas, "pythia_replica_restarts_total")
    expected = choices(await all_of(replicas, 8, max_tokens=100))
    stopped = engines(replicas)[0]
    stopped.send_signal(signal.SIGSTOP)
    assert choices(await all_of(replicas, 8, max_tokens=100)) == expected
    hung = 'pythia_replica_ends_total{device="cpu:0",reason="hung"}'
    other = 'pythia_replica_ends_total{device="cpu:1",reason="hung"}'
    assert total(replicas, hung) + total(replicas, other) >= 1
    assert not stopped.is_running() or stopped.status() == psutil.STATUS_ZOMBIE
    await asyncio.to_thread(
        until, lambda: total(replicas, "pythia_replica_restarts_total") > before, START_SECONDS
    )


@pytest.mark.long
async def test_sigterm_ends_them_when_all_is_answered(replicas: Server) -> None:
    load = asyncio.create_task(all_of(replicas, 24, max_tokens=300))
    await running(replicas)
    processes = psutil.Process(replicas.process.pid).children(recursive=True)
    replicas.process.send_signal(signal.SIGTERM)
    assert len(choices(await load)) == 24
    assert await asyncio.to_thread(replicas.process.wait, 120) == 0
    assert not psutil.wait_procs(processes, timeout=60)[1]
    assert "Traceback" not in replicas.log.read_text()
