"""Memory of a sweep on Ray: of the driver and of the actors, at the most.

    unshare --net --uts --mount-proc --pid --fork --kill-child \\
        .venv-ray/bin/python -m bench.serving.on_ray --rows 1000000

Rows are those of short texts at the six bundled steps, on two nodes of this machine with an actor
each (``make ray``; see bench/serving/ray_nodes.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

from bench.common import machine
from bench.serving.ray_nodes import scorers, start_cluster
from pythia_bento.protocol.parsing import parse
from pythia_bento.sweep.events import Done, Row
from pythia_bento.sweep.ray.cluster import connected
from pythia_bento.sweep.ray.job import run_on_ray
from pythia_bento.sweep.spec import SweepSpec

STEPS = (0, 64, 256, 512, 1000, 3000)
LOOK_SECONDS = 1.0


class Peaks(threading.Thread):
    """Highest resident memory of the driver and of any actor, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.actor = 0.0
        self.start()

    def run(self) -> None:
        while True:
            self.actor = max([self.actor, *(peak(pid) for pid in scorers())])
            time.sleep(LOOK_SECONDS)


def peak(pid: int | str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it ended meanwhile
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def sweep_of(rows: int) -> SweepSpec:
    items = [{"prompt": f"The bear has {number}."} for number in range(rows // len(STEPS))]
    models = [f"bundled@step{step}" for step in STEPS]
    return parse(SweepSpec, {"models": models, "items": items})


async def measured(spec: SweepSpec, address: str) -> dict[str, Any]:
    """Rows are counted and let go, as files would take them."""
    counts = {Row: 0, Done: 0}
    start = time.monotonic()
    before = peak("self")
    with connected(address, ["bundled"]) as machines, tempfile.TemporaryDirectory() as folder:
        peaks = Peaks()
        async for event in run_on_ray(spec, machines, folder=Path(folder)):
            if type(event) in counts:
                counts[type(event)] += 1
    return {
        "rows": counts[Row],
        "checkpoints": counts[Done],
        "seconds": round(time.monotonic() - start, 1),
        "driver_before_mb": round(before),
        "driver_peak_mb": round(peak("self")),
        "actor_peak_mb": round(peaks.actor),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serving.on_ray", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, help="a file for the figures")
    options = parser.parse_args()
    cluster, _ = start_cluster()
    result = asyncio.run(measured(sweep_of(options.rows), cluster.address))
    command = f"python -m bench.serving.on_ray --rows {options.rows}"
    record = {
        "date": date.today().isoformat(),
        "command": command,
        "machine": machine.describe(),
        "results": [result],
    }
    text = json.dumps(record, indent=1) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
