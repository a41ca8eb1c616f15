"""Attacks on a server while somebody honest uses it: ``python -m bench.soak.abuse``.

A server with two keys serves ``bundled``. Attacks come one after another and then eight at a time,
while a process asks ``/livez`` every 20 ms and another, with the other key, streams small requests
over HTTP and gRPC. Prints the worst ``/livez``, the memory, and the honest caller's time to the
first token, idle and under each attack, as JSON; ``--out FILE`` writes it. It takes three minutes.
Nobody attacks at the beginning, in the middle and at the end: that is the idle server.

Attackers and server share the machine, which is what they would not do elsewhere. Therefore each
attack is followed by half as long a time in which nobody attacks and a process burns as much
processor time as the attackers took: what is slower then is the machine's doing, the rest the
server's.
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
from bench.serving.server import Server, serve
from bench.soak.abused import IDLE, Witnesses, beyond, figures_of
from bench.soak.attacker import Attacker
from bench.soak.attacks import ATTACKS, TOGETHER
from bench.soak.figures import left
from bench.soak.witness import honest, livez, memory_of, process, witness
from pythia_bento.server.access.keys import new_key

BURST = 0.05  # seconds in which what burns has its share of a core
HONEST = 2  # requests of the honest caller at a time, at most
SETTLED = 0.5  # seconds between the end of an attack and what follows
GIVEN_BACK = 6.0  # seconds until a server has given back what it can


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
    with serve(settings) as server, memory_of(server) as weights:
        _warm_up(server, keys["attacker"], options)
        weights[:] = weights[-1:]
        urls = (server.url, server.grpc_target)
        with witness(livez, urls[0]) as lives, witness(honest, *urls, keys["honest"]) as firsts:
            phases = _phases(server, keys["attacker"], options)
            time.sleep(GIVEN_BACK)
    figures = {
        "command": " ".join(["python -m bench.soak.abuse", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "load_before": [round(value, 1) for value in load],
        **figures_of(phases, Witnesses(lives, firsts, weights)),
    }
    figures["beyond"] = beyond(figures)
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        Path(options.out).write_text(text + "\n")


def _options() -> argparse.Namespace:
    parser = parser_of("bench.soak.abuse", __doc__)
    parser.add_argument("--seconds", type=float, default=3, help="of each attack")
    parser.add_argument("--only", nargs="*", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--rounds", type=int, default=1, help="of all attacks")
    parser.add_argument("--no-together", action="store_true", help="leave out eight at a time")
    parser.add_argument("--nice", type=int, default=0, help="of attackers' processes, 0 to 19")
    parser.add_argument("--streams", type=int, default=1024, help="PYTHIA_GRPC_STREAMS")
    parser.add_argument("--out")
    return parser.parse_args()


def _warm_up(server: Server, key: str, options: argparse.Namespace) -> None:
    """All pages of the KV cache, and all that is imported or compiled at its first use."""
    for name in ("long_prompts", "score_items_over_grpc"):
        _phase(server, key, options, "warm-up", (name,))


def _phases(server: Server, key: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """When each attack was, what the attackers saw, and when their time was burnt instead."""
    attacks = [(name, (name,)) for name in options.only]
    if not options.no_together:
        attacks.append(("together", TOGETHER))
    phases = []
    for number, (phase, names) in enumerate(attacks * options.rounds):
        if number in (0, len(attacks) // 2):
            phases.append(_phase(server, key, options, IDLE, ()))
        phases.append(_phase(server, key, options, phase, names))
        phases[-1]["burnt"] = _burnt(phases[-1]["cores"]["attackers"], options)
    return [*phases, _phase(server, key, options, IDLE, ())]


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
        "left": asyncio.run(left(server, HONEST)),
        "cores": {
            who: round(seconds / (end - begin), 2)
            for who, seconds in zip(("server", "attackers"), used, strict=True)
        },
    }
    print(phase, row["answers"], file=sys.stderr, flush=True)
    time.sleep(SETTLED)
    return row


def _burnt(cores: float, options: argparse.Namespace) -> dict[str, Any]:
    """So many cores are busy with nothing, beside a server that nobody attacks."""
    processes, seconds = math.ceil(cores), options.seconds / 2
    with ExitStack() as stack:
        for _ in range(processes):
            stack.enter_context(process(_burn, cores / processes, seconds, options.nice))
        begin = time.monotonic()
        time.sleep(seconds)
    return {"between": (begin, begin + seconds, begin + seconds)}


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


if __name__ == "__main__":
    main()
