"""The attacks of docs/faults.md on a real server, eight at a time and then the others.

Each leaves nothing behind, has only answers of its own making, and never holds the event loop for
long, which holds for every test here. Times of others are for ``python -m bench.soak.abuse``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from bench.soak.abused import ANSWERS
from bench.soak.attacker import Attacker
from bench.soak.attacks import ATTACKS, TOGETHER
from tests.e2e.faulty import until, worker
from tests.e2e.serving import BENTOML, HTTP, Server, serve

ALICE, BOB = "alices-key-0123456789", "bobs-key-9876543210"
SECONDS = 1.0
BURST = 1000  # calls
MOST_MIB = 1.2 * 1024
KEPT_MIB = 256  # more than before all attacks: the KV cache's pages, and what Python keeps

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def attacked(home: Path) -> Iterator[Server]:
    keys = f"alice {ALICE}, bob {BOB}"
    # A real one: forks begin with more memory, which they share.
    with serve(home, bentoml=[BENTOML], api_keys=keys, client_timeout=10) as server:
        yield server


@pytest.fixture(scope="module")
def before(attacked: Server) -> float:
    return memory(attacked)


def memory(server: Server) -> float:
    """MiB of all processes."""
    main = psutil.Process(server.process.pid)
    found = [one.memory_info().rss for one in (main, *main.children(recursive=True))]
    return float(sum(found)) / 2**20


@pytest.mark.parametrize("names", [TOGETHER, sorted({*ATTACKS} - {*TOGETHER})], ids="+".join)
async def test_attacks_leave_nothing_behind(
    attacked: Server, before: float, names: Sequence[str]
) -> None:
    process, target = worker(attacked), f"127.0.0.1:{attacked.grpc_port}"
    descriptors = process.num_fds()
    attackers = [Attacker(attacked.url, target, ALICE, SECONDS, burst=BURST) for _ in names]
    peak = asyncio.create_task(peak_of(attacked))
    await asyncio.gather(*(ATTACKS[name](one) for name, one in zip(names, attackers, strict=True)))
    peak.cancel()
    for one in attackers:
        assert set(one.answers) <= ANSWERS, one.answers
    answer = await asyncio.to_thread(ask, attacked)
    assert answer == 200
    await asyncio.to_thread(attacked.settled)
    await asyncio.to_thread(until, lambda: process.num_fds() <= descriptors + 2)
    await asyncio.to_thread(until, lambda: memory(attacked) < before + KEPT_MIB)
    assert await peak < MOST_MIB


async def peak_of(server: Server) -> float:
    """Until it is cancelled."""
    most = 0.0
    try:
        while True:
            most = max(most, memory(server))
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return most


def ask(server: Server) -> int:
    """As somebody else."""
    headers = {"Authorization": f"Bearer {BOB}"}
    body = {"prompt": "Once", "max_tokens": 3}
    return HTTP.post(f"{server.url}/v1/completions", json=body, headers=headers).status_code
