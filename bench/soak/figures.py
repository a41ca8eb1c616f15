"""What a soak and an overload read of the service and of what its clients saw."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx

from bench.common.stats import percentile
from bench.serving.server import Server
from bench.soak.load import Load, Mix, Outcome
from pythia_bento.client import AsyncClient

DOCUMENTED = {"ok", "cancelled", "overloaded"}
SETTLE_SECONDS = 120
METRICS = {
    "running": "num_requests_running",
    "waiting": "num_requests_waiting",
    "blocks": "kv_blocks_used",
}


async def load_of(stack: AsyncExitStack, server: Server, cancelled: float) -> Load:
    """Mixed requests over HTTP and gRPC, of which a share is cancelled."""
    urls = (server.url, f"grpc://{server.grpc_target}")
    clients = [await stack.enter_async_context(AsyncClient(url)) for url in urls]
    limits = (await clients[0].info()).limits
    return Load(clients, Mix(limits.vocabulary - 1, cancelled=cancelled))


def gauges(page: str) -> dict[str, int]:
    """What is held, from the metrics page."""
    values = {}
    for name, metric in METRICS.items():
        found = re.search(rf"^pythia_{metric}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
        if not found:
            raise RuntimeError(f"the metrics page has no pythia_{metric}")
        values[name] = int(float(found[1]))
    return values


async def left(server: Server, besides: int = 0) -> dict[str, int]:
    """What is still held when nobody asks any more; waits a little for zeros.

    ``besides`` so many small requests, which are not counted.
    """
    end = time.monotonic() + SETTLE_SECONDS
    async with httpx.AsyncClient(timeout=60) as client:
        while True:
            found = gauges((await client.get(f"{server.url}/metrics")).text)
            held = {name: max(value - besides, 0) for name, value in found.items()}
            if not any(held.values()) or time.monotonic() > end:
                return held
            await asyncio.sleep(0.2)


def faults_of(held: Mapping[str, int], kinds: Iterable[str]) -> list[str]:
    """What must not be: answers of a kind that is not documented, and what is held at the end."""
    faults = [f"an answer was {kind}" for kind in sorted(set(kinds) - DOCUMENTED)]
    return faults + [f"{count} {name} are left" for name, count in held.items() if count]


def answers(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """Rates and times of what ended within some seconds."""
    answered = [o for o in outcomes if o.kind == "ok"]
    firsts = [o.first for o in answered if o.first is not None]
    return {
        "seconds": seconds,
        "requests": len(outcomes),
        "kinds": dict(Counter(o.kind for o in outcomes).most_common()),
        "answers_per_s": round(len(answered) / seconds, 2),
        "tokens_per_s": round(sum(o.tokens for o in answered) / seconds, 1),
        "answer_ms": _percentiles([o.seconds for o in answered]),
        "first_part_ms": _percentiles(firsts),
        "refusal_ms": _percentiles([o.seconds for o in outcomes if o.kind == "overloaded"]),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {f"p{p}": round(percentile(seconds, p) * 1e3, 1) for p in (50, 90, 99, 100)}
