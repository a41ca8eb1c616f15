"""The service under load for a long time: ``python -m bench.soak --minutes 30``.

Starts ``bentoml serve``, sends mixed requests over HTTP and gRPC of which a fifth are cancelled,
and watches answers, memory, handles and KV blocks. Ends with status 1 when a request failed in a
way that is not documented, when memory at the end is not within 3 % of its level after warm-up,
even in a second and a third such time, or when a block is not given back. ``--loop open --rate 50``
sends 50 requests a second whatever becomes of them.

``--overload`` measures the best rate, then the rate under five times that load, and both again some
times, since machines drift. Readers and server have cores of their own then, or the readers would
take from the server what it is measured by.

``--out FILE`` writes the figures as JSON; ``--plot FILE`` a picture (needs matplotlib:
``pip install pythia-bento[bench]``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from bench.common import machine
from bench.common.options import parser_of
from bench.serving.server import Server, serve
from bench.soak.figures import answers, faults_of, gauges, left, load_of
from bench.soak.load import Load, Outcome
from bench.soak.overload import overload

MEMORY_SHARE = 0.03
# Memory may still be on its way to its level where a busy machine answered little in one round.
# What leaks goes on to grow in the next one.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at one moment."""

    at: float  # time.monotonic()
    rss_mb: float  # of all its processes; what they share is counted for each
    handles: int
    running: int
    waiting: int
    blocks: int


def main() -> None:
    options = _options()
    if options.plot:
        import bench.soak.plot  # needs matplotlib: better missed now than in half an hour
    settings = {
        "PYTHIA_MODEL": options.model,
        "PYTHIA_MAX_QUEUE": str(options.queue),
        "PYTHIA_MAX_BATCH_SIZE": str(options.batch),
    }
    cores = _apart() if options.overload else None
    with serve(settings) as server:
        if cores:
            os.sched_setaffinity(0, cores["readers"])
        figures = asyncio.run(
            overload(server, options) if options.overload else _soak(server, options)
        )
    figures = {"command": " ".join(["python -m bench.soak", *sys.argv[1:]])} | figures
    figures["machine"] = machine.describe()
    if cores:
        figures["cores"] = {who: len(own) for who, own in cores.items()}
    if options.out:
        Path(options.out).write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        bench.soak.plot.plot(figures, Path(options.plot))
    print(
        json.dumps(
            {k: v for k, v in figures.items() if k not in ("series", "answers_by_time")}, indent=1
        )
    )
    if figures["faults"]:
        raise SystemExit("; ".join(figures["faults"]))


def _options() -> argparse.Namespace:
    parser = parser_of("bench.soak", __doc__)
    parser.add_argument(
        "--minutes", type=float, default=2, help="of the soak, of each of the loads of --overload"
    )
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--loop", choices=("closed", "open"), default="closed")
    parser.add_argument("--readers", type=int, default=24, help="of the closed loop")
    parser.add_argument("--rate", type=float, default=20, help="requests/s of the open loop")
    parser.add_argument("--cancelled", type=float, default=0.2, help="share of the requests")
    parser.add_argument("--batch", type=int, default=16, help="PYTHIA_MAX_BATCH_SIZE")
    parser.add_argument("--queue", type=int, default=32, help="PYTHIA_MAX_QUEUE")
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--out")
    parser.add_argument("--plot")
    return parser.parse_args()


def _apart() -> dict[str, set[int]] | None:
    """One core for the readers, the others for the server that is started next; None of one."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        return None
    readers = {max(cores)}
    os.sched_setaffinity(0, cores - readers)
    return {"server": cores - readers, "readers": readers}


async def _soak(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one long run."""
    started = time.monotonic()
    samples: list[Sample] = []
    seconds, found = 0.0, dict[str, Any](memory_growth=math.inf)
    async with AsyncExitStack() as stack:
        load = await load_of(stack, server, options.cancelled)
        while found["memory_growth"] > MEMORY_SHARE and seconds < ROUNDS * options.minutes * 60:
            before = len(samples)
            seconds += options.minutes * 60
            await _round(server, load, options, samples)
            found = _memory(samples[before:])
    found |= {"left": await left(server)}
    faults = _faults(load.outcomes, found)
    return {
        **answers(load.outcomes, seconds),
        **found,
        "faults": faults,
        "series": [asdict(s) | {"at": round(s.at - started, 2)} for s in samples],
        "answers_by_time": _per_second(load.outcomes, started, seconds),
    }


async def _round(
    server: Server, load: Load, options: argparse.Namespace, samples: list[Sample]
) -> None:
    seconds = options.minutes * 60
    watching = asyncio.create_task(_watch(server, samples, seconds / 600))
    if options.loop == "closed":
        await load.closed(options.readers, seconds)
    else:
        await load.open(options.rate, seconds)
    watching.cancel()


async def _watch(server: Server, samples: list[Sample], every: float) -> None:
    main = psutil.Process(server.process.pid)
    async with httpx.AsyncClient(timeout=60) as client:
        while True:
            page = (await client.get(f"{server.url}/metrics")).text
            processes = [main, *main.children(recursive=True)]
            samples.append(
                Sample(
                    time.monotonic(),
                    round(sum(p.memory_info().rss for p in processes) / 1e6, 1),
                    sum(p.num_fds() for p in processes),
                    **gauges(page),
                )
            )
            await asyncio.sleep(max(every, 0.5))


def _memory(samples: Sequence[Sample]) -> dict[str, Any]:
    """Levels of memory and handles: after warm-up (the second fifth), and in the last tenth."""
    count = len(samples)
    warm, last = samples[count // 5 : 2 * count // 5], samples[-max(1, count // 10) :]
    levels = {
        name: [median(getattr(s, name) for s in part) for part in (warm, last)]
        for name in ("rss_mb", "handles")
    }
    growth = levels["rss_mb"][1] / levels["rss_mb"][0] - 1
    return {"levels": levels, "memory_growth": round(growth, 4)}


def _faults(outcomes: Sequence[Outcome], found: dict[str, Any]) -> list[str]:
    """What must not be."""
    faults = faults_of(found["left"], {o.kind for o in outcomes})
    if not any(o.kind == "ok" for o in outcomes):
        faults.append("nothing was answered")
    if found["memory_growth"] > MEMORY_SHARE:
        faults.append(f"memory grew by {found['memory_growth']:.1%}")
    return faults


def _per_second(outcomes: Sequence[Outcome], started: float, seconds: float) -> list[float]:
    """Answers a second in each hundredth of the run."""
    width = seconds / 100
    counts = Counter(int((o.at - started) / width) for o in outcomes if o.kind == "ok")
    return [round(counts[i] / width, 2) for i in range(100)]


if __name__ == "__main__":
    main()
