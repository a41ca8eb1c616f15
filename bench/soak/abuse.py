"""Attacks on a server while somebody honest uses it: ``python -m bench.soak.abuse``.

A server with two keys serves ``bundled``. Attacks come one after another and then eight at a time,
while a process asks ``/livez`` every 20 ms and another, with the other key, streams small requests
over HTTP and gRPC. Prints the worst ``/livez``, the memory, and the honest caller's time to the
first token, idle and under each attack, as JSON; ``--out FILE`` writes it.

Attackers and server share the machine, which is what they would not do elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import psutil

from bench.common import machine
from bench.common.options import parser_of
from bench.common.stats import percentile
from bench.serving.server import Server, serve
from bench.soak.attacks import ATTACKS, TOGETHER, Attacker
from bench.soak.figures import left
from pythia_bento.client import AsyncClient
from pythia_bento.errors import PythiaError
from pythia_bento.server.access.keys import new_key

EVERY = 0.02  # seconds between questions whether the server lives
PAUSE = 0.05  # seconds between the honest caller's requests
GOALS = {"livez_ms": 250.0, "peak_mib": 1.2 * 1024, "times_idle": 3.0}


@dataclass(frozen=True, slots=True)
class Sample:
    """One question of a witness."""

    at: float  # time.monotonic() when it was asked
    seconds: float  # to the answer, or its first token
    kind: str  # "ok", or why there is none


def main() -> None:
    options = _options()
    keys = {"honest": new_key(), "attacker": new_key()}
    settings = {
        "PYTHIA_MODEL": "bundled",
        "PYTHIA_API_KEYS": ", ".join(f"{name} {key}" for name, key in keys.items()),
        "PYTHIA_CLIENT_TIMEOUT": "10",
    }
    load = os.getloadavg()
    with serve(settings) as server, _memory(server) as memory:
        urls = (server.url, server.grpc_target)
        with _witness(_livez, urls[0]) as livez, _witness(_honest, *urls, keys["honest"]) as honest:
            phases = _phases(server, keys["attacker"], options)
        time.sleep(options.seconds)
        memory["after"] = memory["now"]
    figures = {
        "command": " ".join(["python -m bench.soak.abuse", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "load_before": [round(value, 1) for value in load],
        "memory_mib": {
            name: round(value / 2**20) for name, value in memory.items() if name != "now"
        },
        "phases": [_figures(phase, livez, honest) for phase in phases],
    }
    figures["beyond"] = beyond(figures)
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        Path(options.out).write_text(text + "\n")


def _options() -> argparse.Namespace:
    parser = parser_of("bench.soak.abuse", __doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each attack")
    parser.add_argument("--only", nargs="*", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--out")
    return parser.parse_args()


def _phases(server: Server, key: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """When each attack was, and what the attackers saw."""
    attacks = {name: (name,) for name in options.only} | {"together": TOGETHER}
    return [_phase(server, key, options.seconds, "idle", ())] + [
        _phase(server, key, options.seconds, phase, names) for phase, names in attacks.items()
    ]


def _phase(
    server: Server, key: str, seconds: float, phase: str, names: Sequence[str]
) -> dict[str, Any]:
    begin = time.monotonic()
    with ExitStack() as stack:
        where = (server.url, server.grpc_target, key, seconds)
        reports = {name: stack.enter_context(_process(_attack, name, *where)) for name in names}
        if not names:
            time.sleep(seconds)
        found = {name: report.recv() for name, report in reports.items()}
    begins = [began for began, _, _ in found.values()]
    row = {
        "phase": phase,
        "begin": min(begins, default=begin),
        "end": max((end for _, end, _ in found.values()), default=time.monotonic()),
        "answers": {name: answers for name, (_, _, answers) in found.items()},
        "left": asyncio.run(left(server)),
    }
    time.sleep(2)
    return row


def _attack(
    pipe: Connection, name: str, url: str, grpc_target: str, key: str, seconds: float
) -> None:
    pipe.send("here")
    attacker = Attacker(url, grpc_target, key, seconds)
    asyncio.run(_run(name, attacker))
    pipe.send((attacker.began, time.monotonic(), dict(attacker.answers)))


async def _run(name: str, attacker: Attacker) -> None:
    await ATTACKS[name](attacker)


def _figures(
    phase: dict[str, Any], livez: Sequence[Sample], honest: Sequence[Sample]
) -> dict[str, Any]:
    begin, end = phase.pop("begin"), phase.pop("end")
    here = [[s for s in samples if begin <= s.at < end] for samples in (livez, honest)]
    firsts = [sample.seconds for sample in here[1] if sample.kind == "ok"]
    return {
        **phase,
        "livez_worst_ms": round(max(sample.seconds for sample in here[0]) * 1e3, 1),
        "livez_refused": sum(sample.kind != "ok" for sample in here[0]),
        "honest": len(here[1]),
        "honest_refused": sum(sample.kind != "ok" for sample in here[1]),
        "first_token_ms": {
            f"p{p}": round(percentile(firsts, p) * 1e3, 1) if firsts else None for p in (50, 99)
        },
    }


def beyond(figures: dict[str, Any]) -> list[str]:
    """What is not as it has to be."""
    found = []
    idle, *attacks = figures["phases"]
    for phase in figures["phases"]:
        if phase["livez_worst_ms"] > GOALS["livez_ms"] or phase["livez_refused"]:
            found.append(f"{phase['phase']}: /livez took {phase['livez_worst_ms']} ms at most")
        if any(phase["left"].values()):
            found.append(f"{phase['phase']}: {phase['left']} are left")
    for phase in attacks:
        p99, most = phase["first_token_ms"]["p99"], idle["first_token_ms"]["p99"]
        if phase["honest_refused"] or p99 is None or p99 > GOALS["times_idle"] * most:
            found.append(f"{phase['phase']}: p99 {p99} ms, {phase['honest_refused']} refused")
    if figures["memory_mib"]["peak"] > GOALS["peak_mib"]:
        found.append(f"memory was {figures['memory_mib']['peak']} MiB at most")
    return found


@contextmanager
def _memory(server: Server) -> Iterator[dict[str, float]]:
    """Bytes of all processes of the server: now, before, at most."""
    found = {"before": _rss(server), "peak": 0.0, "now": 0.0}
    ended = Event()

    def watch() -> None:
        while not ended.wait(0.1):
            found["now"] = _rss(server)
            found["peak"] = max(found["peak"], found["now"])

    thread = Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _rss(server: Server) -> float:
    main = psutil.Process(server.process.pid)
    return float(sum(one.memory_info().rss for one in (main, *main.children(recursive=True))))


@contextmanager
def _process(run: Any, *arguments: Any) -> Iterator[Connection]:
    """A process of its own, which is there."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(theirs, *arguments))
    process.start()
    ours.recv()
    try:
        yield ours
    finally:
        process.join()


@contextmanager
def _witness(run: Any, *arguments: str) -> Iterator[list[Sample]]:
    """Its samples are here at the end."""
    samples: list[Sample] = []
    with _process(run, *arguments) as pipe:
        try:
            yield samples
        finally:
            pipe.send("end")
            samples += pipe.recv()


def _livez(pipe: Connection, url: str) -> None:
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


def _honest(pipe: Connection, url: str, grpc_target: str, key: str) -> None:
    pipe.send("here")
    pipe.send(asyncio.run(_ask(pipe, [url, f"grpc://{grpc_target}"], key)))


async def _ask(pipe: Connection, urls: Sequence[str], key: str) -> list[Sample]:
    samples: list[Sample] = []
    clients = [AsyncClient(url, api_key=key, timeout=60) for url in urls]
    while not pipe.poll():
        for client in clients:
            at, kind, first = time.monotonic(), "ok", None
            try:
                async for _ in client.stream([5, 6, 7], max_tokens=8, ignore_eos=True):
                    first = first or time.monotonic()
            except PythiaError as error:
                kind = error.code
            samples.append(Sample(at, (first or time.monotonic()) - at, kind))
            await asyncio.sleep(PAUSE)
    for client in clients:
        await client.close()
    return samples


if __name__ == "__main__":
    main()
