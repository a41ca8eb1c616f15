"""The serving path of this tree beside another one's: ``python -m bench.serving.beside``.

``--other`` is a checkout, of an older commit say. Both serve over a device that computes nothing
(``bench.serving.instant`` there and here) at the same time, and have the same load by turns:
clients that ask for greedy answers one after another, without streaming and with. Rates and
processor time differ much from run to run and little within a pair, so what counts is the median of
the ratios of pairs. ``--steps`` are BENCH_STEP_US: 0 is as fast as the host can, 1,280 stands for
50,000 tokens/s of 64 sequences.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.common.options import parser_of
from bench.common.stats import summary
from bench.gpu import harness
from bench.serving.client import Job, run_all
from bench.serving.serve import INSTANT, vocabulary_of
from bench.serving.server import HOST, ROOT, Server, serve

OLD_INSTANT = "bench.instant:Pythia"  # before bench/ had folders
NEW_TOKENS = 128
MODEL = {"PYTHIA_MODEL": "bundled", "PYTHIA_DEVICE": "cpu"}


class Place(NamedTuple):
    """How both serve: a step's time in us, and whether the engine has a process of its own."""

    step_us: int
    engine_process: bool


class Figures(NamedTuple):
    """Of one run."""

    tokens_per_s: float
    cpu_us_per_token: float


def main() -> None:
    parser = parser_of("bench.serving.beside", __doc__)
    parser.add_argument("--other", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--named", default="another", help="what the results call it: its commit")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8, help="requests of each client in a run")
    parser.add_argument("--pairs", type=int, default=9, help="runs of each tree")
    parser.add_argument("--processes", type=int, default=2, help="that the clients share")
    parser.add_argument("--transports", default="http,http-stream")
    parser.add_argument("--steps", default="0,1280")
    parser.add_argument("--out", default="bench/results/h200-beside.json")
    options = parser.parse_args()
    rows = []
    for place in _places(options.steps):
        with _both(options.other.resolve(), place, options.clients) as servers:
            for transport in options.transports.split(","):
                job = _job(transport, options.clients, options.rounds)
                pairs = _pairs(servers, job, options.processes, options.pairs)
                rows.append({"backend": transport, **place._asdict(), **_compared(pairs)})
                _show(rows[-1])
                harness.write(options.out, rows, other=options.named, clients=options.clients)


def _places(steps: str) -> Iterator[Place]:
    yield from (Place(int(step), False) for step in steps.split(","))
    yield Place(0, True)


@contextmanager
def _both(other: Path, place: Place, clients: int) -> Iterator[tuple[Server, Server]]:
    """The servers of ``other`` and of this tree."""
    os.environ["BENCH_STEP_US"] = str(place.step_us)
    settings = MODEL | {
        "PYTHIA_MAX_BATCH_SIZE": str(clients),
        "PYTHIA_ENGINE_PROCESS": str(place.engine_process).lower(),
    }
    target = INSTANT if (other / "bench/serving").is_dir() else OLD_INSTANT
    with ExitStack() as stack:
        there = stack.enter_context(serve(settings, target, other))
        yield there, stack.enter_context(serve(settings, INSTANT, ROOT))


def _job(transport: str, clients: int, rounds: int) -> Job:
    shape = (clients, rounds, NEW_TOKENS, NEW_TOKENS, vocabulary_of(MODEL))
    return Job(transport, HOST, 0, *shape, seed=0)


def _pairs(
    servers: tuple[Server, Server], job: Job, processes: int, count: int
) -> list[tuple[Figures, Figures]]:
    """By turns, and in turn the one or the other first."""
    for server in servers:
        run_all(job.shared(processes, port=server.port, rounds=1, seed=10_000))
    pairs = []
    for number in range(count):
        order = servers if number % 2 else servers[::-1]
        found = {server.port: _run(server, job, processes, 100 * number) for server in order}
        there, here = (found[server.port] for server in servers)
        pairs.append((there, here))
        print(".", end="", file=sys.stderr, flush=True)
    return pairs


def _run(server: Server, job: Job, processes: int, seed: int) -> Figures:
    before = server.cpu_seconds()
    row = summary(run_all(job.shared(processes, port=server.port, seed=seed)))
    used = server.cpu_seconds() - before
    return Figures(row["tokens_per_s"], used / row["tokens"] * 1e6)


def _compared(pairs: list[tuple[Figures, Figures]]) -> dict[str, Any]:
    """Medians of both, and of the ratios of this tree to the other."""
    shown: dict[str, Any] = {}
    for name in Figures._fields:
        other, this = ([getattr(pair[tree], name) for pair in pairs] for tree in (0, 1))
        ratios = [mine / theirs for mine, theirs in zip(this, other, strict=True)]
        shown[name] = {
            "other": round(median(other), 2),
            "this": round(median(this), 2),
            "ratio": round(median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }
    return shown


def _show(row: dict[str, Any]) -> None:
    process = "own process" if row["engine_process"] else "one process"
    rate, cpu = row["tokens_per_s"], row["cpu_us_per_token"]
    print(
        f"{row['backend']:12} {process}, steps of {row['step_us']} us: {rate['other']:,.0f} -> "
        f"{rate['this']:,.0f} tokens/s, median of ratios {rate['ratio']}; {cpu['other']} -> "
        f"{cpu['this']} us of processor a token, {cpu['ratio']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
