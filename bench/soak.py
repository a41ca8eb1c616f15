"""The service under load for a long time: ``python -m bench.soak --minutes 30``.

Starts ``bentoml serve``, sends mixed requests over HTTP and gRPC of which a fifth are cancelled,
and watches answers, memory, handles and KV blocks. Ends with status 1 when a request failed in a
way that is not documented, when memory at the end is not within 3 % of its level after warm-up, or
when a block is not given back. ``--loop open --rate 50`` sends 50 requests a second whatever
becomes of them.

``--overload`` measures the best rate, then the rate under five times that load. Readers and server
have cores of their own then, or the readers would take from the server what it is measured by.

``--out FILE`` writes the figures as JSON; ``--plot FILE`` a picture (needs matplotlib:
``pip install pythia-bento[bench]``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
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

from bench import machine
from bench.server import Server, serve
from bench.soak_load import Load, Mix, Outcome
from bench.stats import percentile
from pythia_bento.client import AsyncClient

DOCUMENTED = {"ok", "cancelled", "overloaded"}
MEMORY_SHARE = 0.03
SETTLE_SECONDS = 30
OVERLOAD = 5
METRICS = {
    "running": "num_requests_running",
    "waiting": "num_requests_waiting",
    "blocks": "kv_blocks_used",
}


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
        import bench.soak_plot  # needs matplotlib: better missed now than in half an hour
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
            _overload(server, options) if options.overload else _soak(server, options)
        )
    figures = {"command": " ".join(["python -m bench.soak", *sys.argv[1:]])} | figures
    figures["machine"] = machine.describe()
    if cores:
        figures["cores"] = {who: len(own) for who, own in cores.items()}
    if options.out:
        Path(options.out).write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        bench.soak_plot.plot(figures, Path(options.plot))
    print(
        json.dumps(
            {k: v for k, v in figures.items() if k not in ("series", "answers_by_time")}, indent=1
        )
    )
    if figures["faults"]:
        raise SystemExit("; ".join(figures["faults"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=2)
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


async def _load(stack: AsyncExitStack, server: Server, cancelled: float) -> Load:
    urls = (server.url, f"grpc://{server.grpc_target}")
    clients = [await stack.enter_async_context(AsyncClient(url)) for url in urls]
    limits = (await clients[0].info()).limits
    return Load(clients, Mix(limits.vocabulary - 1, cancelled=cancelled))


async def _soak(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one long run."""
    started = time.monotonic()
    samples: list[Sample] = []
    seconds = options.minutes * 60
    async with AsyncExitStack() as stack:
        load = await _load(stack, server, options.cancelled)
        watching = asyncio.create_task(_watch(server, samples, seconds / 600))
        if options.loop == "closed":
            await load.closed(options.readers, seconds)
        else:
            await load.open(options.rate, seconds)
        watching.cancel()
    left = await _left(server)
    found = _memory(samples) | {"left": left}
    faults = _faults(load.outcomes, found)
    return {
        **_answers(load.outcomes, seconds),
        **found,
        "faults": faults,
        "series": [asdict(s) | {"at": round(s.at - started, 2)} for s in samples],
        "answers_by_time": _per_second(load.outcomes, started, seconds),
    }


async def _overload(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """The best rate of a closed loop beside the rate under five times that load."""
    seconds = options.minutes * 60
    rows = []
    async with AsyncExitStack() as stack:
        for kind in ("best", "overload"):
            load = await _load(stack, server, 0.0)
            begun = server.cpu_seconds(), time.process_time()
            if kind == "best":
                await load.closed(options.readers, seconds)
            else:
                await load.open(OVERLOAD * rows[0]["answers_per_s"], seconds)
            used = server.cpu_seconds() - begun[0]
            rows.append({"load": kind, **_answers(load.outcomes, seconds)})
            rows[-1] |= {
                "server_cpu_s": round(used, 1),
                "readers_cpu_s": round(time.process_time() - begun[1], 1),
                "tokens_per_server_cpu_s": round(rows[-1]["tokens_per_s"] * seconds / used, 1),
            }
    shares = {
        name: round(rows[1][rate] / rows[0][rate], 3)
        for name, rate in (
            ("share_of_best", "tokens_per_s"),
            ("share_of_best_by_server_cpu", "tokens_per_server_cpu_s"),
        )
    }
    return {"rows": rows, **shares, "left": await _left(server), "faults": []}


async def _watch(server: Server, samples: list[Sample], every: float) -> None:
    main = psutil.Process(server.process.pid)
    async with httpx.AsyncClient(timeout=30) as client:
        while True:
            page = (await client.get(f"{server.url}/metrics")).text
            processes = [main, *main.children(recursive=True)]
            samples.append(
                Sample(
                    time.monotonic(),
                    round(sum(p.memory_info().rss for p in processes) / 1e6, 1),
                    sum(p.num_fds() for p in processes),
                    **_gauges(page),
                )
            )
            await asyncio.sleep(max(every, 0.5))


def _gauges(page: str) -> dict[str, int]:
    values = {}
    for name, metric in METRICS.items():
        found = re.search(rf"^pythia_{metric}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
        if not found:
            raise RuntimeError(f"the metrics page has no pythia_{metric}")
        values[name] = int(float(found[1]))
    return values


async def _left(server: Server) -> dict[str, int]:
    """What is still held when nobody asks any more; waits a little for zeros."""
    end = time.monotonic() + SETTLE_SECONDS
    async with httpx.AsyncClient() as client:
        while True:
            left = _gauges((await client.get(f"{server.url}/metrics")).text)
            if not any(left.values()) or time.monotonic() > end:
                return left
            await asyncio.sleep(0.2)


def _answers(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
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
    faults = [f"an answer was {kind}" for kind in {o.kind for o in outcomes} - DOCUMENTED]
    if not any(o.kind == "ok" for o in outcomes):
        faults.append("nothing was answered")
    if found["memory_growth"] > MEMORY_SHARE:
        faults.append(f"memory grew by {found['memory_growth']:.1%}")
    faults += [f"{count} {name} are left" for name, count in found["left"].items() if count]
    return faults


def _per_second(outcomes: Sequence[Outcome], started: float, seconds: float) -> list[float]:
    """Answers a second in each hundredth of the run."""
    width = seconds / 100
    counts = Counter(int((o.at - started) / width) for o in outcomes if o.kind == "ok")
    return [round(counts[i] / width, 2) for i in range(100)]


if __name__ == "__main__":
    main()
