"""Several engines behind one front: what the front can carry, and what a second GPU brings.

``python -m bench.serving.replicas [--only front,clients,sweep,resident] [--out FILE]``

*front*: requests/s and tokens/s through HTTP over 1, 2 and 4 engines that compute nothing, each in
a process of its own; it needs no GPU. *clients*: 64 and 256 clients over the first of ``--devices``
alone and over all. *sweep*: texts scored at ``--checkpoints`` random checkpoints, read from the
disk and then resident, over one device and over all. *resident*: one text at ``--resident``
checkpoints, twice, over all devices; the second time nothing is to be loaded. The aim of all ratios
is 1.9 for two devices.

``--devices cpu:2 --model pythia-14m --checkpoints 3 --resident 4`` tries all of it on a processor.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.common.options import parser_of
from bench.common.random_model import SUITE
from bench.gpu import harness
from bench.serving import replica_stage
from bench.serving.client import Job
from bench.serving.serve import INSTANT, measured, vocabulary_of
from bench.serving.server import HOST, serve
from pythia_bento.runtime.backend import SWITCH_SECONDS

Rows = Iterator[dict[str, Any]]
FRONTS = (1, 2, 4)
TRANSPORTS = ("http", "http-stream")
CLIENTS = (64, 256)
STEP_TEXTS, STEP_TOKENS = 1, 64  # of *resident*


def main() -> None:
    options = _options()
    sys.setswitchinterval(SWITCH_SECONDS)  # as servers do
    rows: list[dict[str, Any]] = []
    for part in options.only.split(","):
        for row in PARTS[part](options):
            rows.append({"what": part} | row)
            _compare(rows)
            print(json.dumps(rows[-1]), flush=True)
            if options.out:
                harness.write(options.out, rows)


def _options() -> argparse.Namespace:
    parser = parser_of("bench.serving.replicas", __doc__)
    parser.add_argument("--devices", default="0,1")
    parser.add_argument("--model", default="pythia-1b")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--clients", default=",".join(map(str, CLIENTS)))
    parser.add_argument("--rounds", type=int, default=8, help="requests of each client")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--processes", type=int, default=8, help="that the clients share")
    parser.add_argument("--checkpoints", type=int, default=16)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--resident", type=int, default=154)
    parser.add_argument("--cache-gb", type=float, default=8.0)
    parser.add_argument("--out")
    return parser.parse_args()


def front(options: argparse.Namespace) -> Rows:
    """Over engines that compute nothing."""
    for count in FRONTS:
        settings = {"PYTHIA_MODEL": "bundled", "PYTHIA_DEVICES": f"cpu:{count}"}
        yield from _through(options, settings, INSTANT, count, TRANSPORTS)


def clients(options: argparse.Namespace) -> Rows:
    """Through HTTP, over one device and over all."""
    with ExitStack() as stack:
        model = options.model
        if model in SUITE:
            model = str(stack.enter_context(_checkpoints(options, 1)) / "0")
        for devices, count in _sets(options.devices):
            settings = {"PYTHIA_MODEL": model, "PYTHIA_DEVICES": devices}
            yield from _through(options, settings, "service:Pythia", count, TRANSPORTS[:1])


def sweep(options: argparse.Namespace) -> Rows:
    """From the disk, and of what is on the devices."""
    with _checkpoints(options, options.checkpoints) as folder:
        for devices, count in _sets(options.devices):
            with replica_stage.runner_of(folder, devices, options.cache_gb) as served:
                for where in ("disk", "device"):
                    found = replica_stage.swept(
                        served, options.checkpoints, options.texts, options.prompt
                    )
                    yield {"engines": count, "from": where, "texts": options.texts, **found}


def resident(options: argparse.Namespace) -> Rows:
    """All of a run's checkpoints, each on one of the devices."""
    devices, count = _sets(options.devices)[-1]
    with (
        _checkpoints(options, options.resident) as folder,
        replica_stage.runner_of(folder, devices, options.cache_gb) as served,
    ):
        for where in ("disk", "device"):
            found = replica_stage.swept(served, options.resident, STEP_TEXTS, STEP_TOKENS)
            on_device = [one.stats.group.on_device for one in served.replicas]
            yield {"engines": count, "from": where, "on_device": on_device, **found}


PARTS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    part.__name__: part for part in (front, clients, sweep, resident)
}


def _through(
    options: argparse.Namespace,
    settings: dict[str, str],
    target: str,
    count: int,
    transports: tuple[str, ...],
) -> Rows:
    vocabulary = vocabulary_of(settings)
    with serve(settings | {"PYTHIA_MAX_BATCH_SIZE": "256"}, target) as server:
        for clients in map(int, options.clients.split(",")):
            for transport in transports:
                shape = (clients, options.rounds, options.prompt, options.new, vocabulary)
                job = Job(transport, HOST, server.port, *shape, seed=clients)
                found = measured(server, job, options.processes)
                requests = found["tokens"] / options.new / found["seconds"]
                yield {
                    "engines": count,
                    "clients": clients,
                    "transport": transport,
                    "requests_per_s": round(requests, 1),
                    **found,
                }


def _sets(devices: str) -> list[tuple[str, int]]:
    """The first device alone, and all; with how many they are."""
    if devices.startswith("cpu:"):
        return [("cpu:1", 1), (devices, int(devices.removeprefix("cpu:")))]
    return [(devices.split(",")[0], 1), (devices, len(devices.split(",")))]


@contextmanager
def _checkpoints(options: argparse.Namespace, count: int) -> Iterator[Path]:
    """A folder of random ones, gone at the end."""
    device = "cpu" if options.devices.startswith("cpu") else "cuda"
    with tempfile.TemporaryDirectory() as folder:
        replica_stage.written(options.model, Path(folder), count, device)
        yield Path(folder)


def _compare(rows: list[dict[str, Any]]) -> None:
    """Add to the last row how much faster it is than the same over one engine."""
    last = rows[-1]
    same = ("what", "clients", "transport", "from", "texts")
    one = next((row for row in rows if all(row.get(name) == last.get(name) for name in same)), last)
    if one is last or one["engines"] != 1:
        return
    if "tokens_per_s" in last:
        last["times"] = round(last["tokens_per_s"] / one["tokens_per_s"], 3)
    else:
        last["times"] = round(one["seconds"] / last["seconds"], 3)


if __name__ == "__main__":
    main()
