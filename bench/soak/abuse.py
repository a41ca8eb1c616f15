"""Attacks on a server while somebody honest uses it: ``python -m bench.soak.abuse``.

A server with two keys serves ``bundled``. Attacks come one after another and then eight at a time,
while a process asks ``/livez`` every 20 ms and another, with the other key, streams small requests
over HTTP and gRPC. Prints the worst ``/livez``, the memory, and the honest caller's time to the
first token, idle and under each attack, as JSON; ``--out FILE`` writes it.

Attackers and server share the machine, which is what they would not do elsewhere. Therefore each
attack is followed by as long a time in which nobody attacks and a process burns as much processor
time as the attackers took: what is slower then is the machine's doing, the rest the server's.
``--nice 19`` leaves attackers, and what burns in their place, only the time that nobody else wants.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.common import machine
from bench.common.options import parser_of
from bench.common.stats import percentile
from bench.serving.server import Server, serve
from bench.soak.attacks import ATTACKS, TOGETHER, Attacker
from bench.soak.figures import left
from bench.soak.witness import Sample, honest, livez, memory_of, process, witness
from pythia_bento.server.access.keys import new_key

BURST = 0.05  # seconds in which what burns has its share of a core
GOALS = {"livez_ms": 250.0, "peak_mib": 1.2 * 1024, "times_idle": 3.0}


def main() -> None:
    options = _options()
    keys = {"honest": new_key(), "attacker": new_key()}
    settings = {
        "PYTHIA_MODEL": "bundled",
        "PYTHIA_API_KEYS": ", ".join(f"{name} {key}" for name, key in keys.items()),
        "PYTHIA_CLIENT_TIMEOUT": "10",
        "PYTHIA_GRPC_STREAMS": str(options.streams),
    }
    load = os.getloadavg()
    phases: list[dict[str, Any]] = []
    with serve(settings) as server, memory_of(server) as memory:
        after = []
        urls = (server.url, server.grpc_target)
        with witness(livez, urls[0]) as lives, witness(honest, *urls, keys["honest"]) as firsts:
            for _ in range(options.rounds):
                phases += _phases(server, keys["attacker"], options)
                time.sleep(options.seconds)
                after.append(memory["now"])
    figures = {
        "command": " ".join(["python -m bench.soak.abuse", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "load_before": [round(value, 1) for value in load],
        "memory_mib": {
            **{name: round(memory[name] / 2**20) for name in ("before", "peak")},
            "after_rounds": [round(value / 2**20) for value in after],
        },
        "phases": [_figures(phase, lives, firsts) for phase in phases],
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
    parser.add_argument("--rounds", type=int, default=1, help="of all attacks, for the memory")
    parser.add_argument("--no-together", action="store_true", help="leave out eight at a time")
    parser.add_argument("--nice", type=int, default=0, help="of attackers' processes, 0 to 19")
    parser.add_argument("--streams", type=int, default=1024, help="PYTHIA_GRPC_STREAMS")
    parser.add_argument("--out")
    return parser.parse_args()


def _phases(server: Server, key: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """When each attack was, what the attackers saw, and when their time was burnt instead."""
    attacks = {name: (name,) for name in options.only}
    if not options.no_together:
        attacks["together"] = TOGETHER
    phases = [_phase(server, key, options, "idle", ())]
    for phase, names in attacks.items():
        phases.append(_phase(server, key, options, phase, names))
        phases[-1]["burnt"] = _burnt(phases[-1]["cores"]["attackers"], options)
    return phases


def _phase(
    server: Server, key: str, options: argparse.Namespace, phase: str, names: Sequence[str]
) -> dict[str, Any]:
    begin, before = time.monotonic(), server.cpu_seconds()
    with ExitStack() as stack:
        where = (server.url, server.grpc_target, key, options.seconds, options.nice)
        reports = [stack.enter_context(process(_attack, name, *where)) for name in names]
        if not names:
            time.sleep(options.seconds)
        found = {name: report.recv() for name, report in zip(names, reports, strict=True)}
    begin = min((report.began for report in found.values()), default=begin)
    end = max((report.ended for report in found.values()), default=time.monotonic())
    # Behind that nobody attacks any more: some wait for the rest of an answer.
    attacked = min(end, begin + options.seconds)
    used = server.cpu_seconds() - before, sum(report.processor for report in found.values())
    row = {
        "phase": phase,
        "between": (begin, attacked, end),
        "answers": {name: report.answers for name, report in found.items()},
        "left": asyncio.run(left(server)),
        "cores": {
            who: round(seconds / (end - begin), 2)
            for who, seconds in zip(("server", "attackers"), used, strict=True)
        },
    }
    time.sleep(2)
    return row


def _burnt(cores: float, options: argparse.Namespace) -> dict[str, Any]:
    """So many cores are busy with nothing, beside a server that nobody attacks."""
    processes = math.ceil(cores)
    with ExitStack() as stack:
        for _ in range(processes):
            share = cores / processes
            stack.enter_context(process(_burn, share, options.seconds, options.nice))
        begin = time.monotonic()
        time.sleep(options.seconds)
    row = {"between": (begin, begin + options.seconds, begin + options.seconds)}
    time.sleep(1)
    return row


@dataclass(frozen=True, slots=True)
class _Report:
    """Of one attacker's process."""

    began: float
    ended: float
    processor: float  # seconds
    answers: dict[str, int]


def _attack(
    pipe: Connection, name: str, url: str, grpc_target: str, key: str, seconds: float, nice: int
) -> None:
    os.nice(nice)
    pipe.send("here")
    attacker = Attacker(url, grpc_target, key, seconds)
    before = time.process_time()
    asyncio.run(_run(name, attacker))
    processor = time.process_time() - before
    pipe.send(_Report(attacker.began, time.monotonic(), processor, dict(attacker.answers)))


def _burn(pipe: Connection, share: float, seconds: float, nice: int) -> None:
    """Busy for a part of each BURST."""
    os.nice(nice)
    pipe.send("here")
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        until = time.process_time() + BURST * share
        while time.process_time() < until:
            pass
        time.sleep(max(now + BURST - time.monotonic(), 0))


async def _run(name: str, attacker: Attacker) -> None:
    await ATTACKS[name](attacker)


def _figures(
    phase: dict[str, Any], lives: Sequence[Sample], firsts: Sequence[Sample]
) -> dict[str, Any]:
    """What the witnesses saw in a phase, and while its attackers' time was burnt."""
    begin, attacked, end = phase.pop("between")
    alive = [sample for sample in lives if begin <= sample.at < end]
    here = [sample for sample in firsts if begin <= sample.at < attacked]
    found = {
        **phase,
        "livez_worst_ms": round(max((s.seconds for s in alive), default=0.0) * 1e3, 1),
        "livez_refused": sum(sample.kind != "ok" for sample in alive),
        "honest": len(here),
        "honest_refused": sum(sample.kind != "ok" for sample in here),
        "first_token_ms": _percentiles([s.seconds for s in here if s.kind == "ok"]),
    }
    if "burnt" in phase:
        found["burnt"] = _figures(phase["burnt"], lives, firsts)
    return found


def _percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    return {f"p{p}": round(percentile(seconds, p) * 1e3, 1) if seconds else None for p in (50, 99)}


def _unattacked(figures: dict[str, Any]) -> float:
    """The least 99th percentile of all times in which nobody attacked, in milliseconds."""
    quiet = [phase for phase in figures["phases"] if phase["phase"] == "idle"]
    quiet += [phase["burnt"] for phase in figures["phases"] if "burnt" in phase]
    return min(phase["first_token_ms"]["p99"] for phase in quiet)


def beyond(figures: dict[str, Any]) -> list[str]:
    """What is not as it has to be."""
    found = []
    idle = _unattacked(figures)
    for phase in figures["phases"]:
        if phase["livez_worst_ms"] > GOALS["livez_ms"] or phase["livez_refused"]:
            found.append(f"{phase['phase']}: /livez took {phase['livez_worst_ms']} ms at most")
        if any(phase["left"].values()):
            found.append(f"{phase['phase']}: {phase['left']} are left")
        p99 = phase["first_token_ms"]["p99"]
        if phase["honest_refused"] or p99 is None or p99 > GOALS["times_idle"] * idle:
            found.append(f"{phase['phase']}: p99 {p99} ms, {phase['honest_refused']} refused")
    if figures["memory_mib"]["peak"] > GOALS["peak_mib"]:
        found.append(f"memory was {figures['memory_mib']['peak']} MiB at most")
    return found


if __name__ == "__main__":
    main()
