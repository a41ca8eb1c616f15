"""The best rate of a service beside its rate under five times that load."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from bench.serving.server import Server
from bench.soak.figures import answers, faults_of, left, load_of

OVERLOAD, ROUNDS = 5, 3
RAMP_SECONDS = 5.0  # until the queue is as full as it will be, and answers come evenly


async def overload(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of both loads by turns: machines drift."""
    rows: list[dict[str, Any]] = []
    kinds: set[str] = set()  # of all answers, those that no rate counts too
    seconds = options.minutes * 60 / ROUNDS
    async with AsyncExitStack() as stack:
        for _ in range(ROUNDS):
            rows.append(await _phase(stack, server, options.readers, seconds, None, kinds))
            rate = OVERLOAD * rows[-1]["answers_per_s"]
            rows.append(await _phase(stack, server, options.readers, seconds, rate, kinds))
    share = share_of_best([row["tokens_per_s"] for row in rows])
    held = await left(server)
    return {"rows": rows, "share_of_best": share, "left": held, "faults": faults_of(held, kinds)}


async def _phase(
    stack: AsyncExitStack,
    server: Server,
    readers: int,
    seconds: float,
    rate: float | None,
    kinds: set[str],
) -> dict[str, Any]:
    """Figures of ``rate`` requests a second, or of as many as the readers' closed loop brings.

    What ends while the load sets in, or is left over when it ends, is in ``kinds`` only.
    """
    load = await load_of(stack, server, 0.0)
    begin = time.monotonic() + RAMP_SECONDS
    if rate is None:
        await load.closed(readers, RAMP_SECONDS + seconds)
    else:
        await load.open(rate, RAMP_SECONDS + seconds)
    kinds.update(o.kind for o in load.outcomes)
    counted = [o for o in load.outcomes if begin <= o.at < begin + seconds]
    return {"load": "best" if rate is None else "overload", **answers(counted, seconds)}


def share_of_best(rates: Sequence[float]) -> float:
    """Median of what every second rate is of the one before it."""
    return round(median(over / best for best, over in zip(rates[::2], rates[1::2], strict=True)), 3)
