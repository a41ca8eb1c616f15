"""What a cold checkpoint costs, and what those notice who decode meanwhile.

``python -m bench.serving.loads [--model pythia-160m] [--device cpu] [--rounds N] [--out FILE]``:
one stream of a random checkpoint; in the middle of it somebody asks another one, which is on the
disk and out of the system's cache. Printed is the longest time between two tokens while nothing is
loaded and while something is; the aim is two steps and 50 ms, of which a turn of the other
checkpoint is a part. Then the same for who is alone: seconds to the cold one's first token, beside
those that reading its bytes alone takes, as many files at a time; the aim is 1.25 of these.
``--trace`` tells besides what else the disk gives, by files or pieces at a time, and when what
happened on the way to the first token; ``--only alone`` leaves the streams out.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from bench.common import machine
from bench.common.directories import Directories, forget, read_pieces, read_weights
from bench.common.options import parser_of
from bench.common.random_model import write_int8
from bench.serving.load_trace import Trace
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf import entry_of
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.outputs import raise_error
from pythia_bento.engine.params import Request, SamplingParams, new_request_id
from pythia_bento.runtime import loading, runner
from pythia_bento.runtime.backend import SWITCH_SECONDS
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings

TOKENS = {"cpu": 200, "cuda": 2000}  # of the stream
BEFORE = 5  # the part of them until another checkpoint is asked for: one in so many
AIM_SECONDS = 0.05  # and two steps


def main() -> None:
    parser = parser_of("bench.serving.loads", __doc__)
    parser.add_argument("--model", default="pythia-160m")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["alone"])
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)  # as servers do
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(_measure(options, Path(folder)))
    for row in rows:
        print(json.dumps(row))
    if options.out:
        found = {
            "date": date.today().isoformat(),
            "command": f"python -m bench.serving.loads --model {options.model} "
            f"--device {options.device} --rounds {options.rounds}"
            + (f" --only {options.only}" if options.only else "")
            + (" --trace" if options.trace else ""),
            "machine": machine.describe(),
            "versions": machine.versions(),
            "rows": rows,
        }
        options.out.write_text(json.dumps(found, indent=1) + "\n")


async def _measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    paths = [folder / f"{options.model}-{seed}" for seed in range(2)]
    for seed, path in enumerate(paths):
        write_int8(options.model, path, torch.device(options.device), seed=seed)
    shelf = Directories([entry_of(load_checkpoint(str(path))) for path in paths])
    loading.shelf_of = runner.shelf_of = lambda settings, entry: shelf  # type: ignore[assignment]
    settings = Settings(
        model=str(paths[0]), device=options.device, kv_cache_gb=0.5, host_models_gb=0.0
    )
    rows = []
    with await asyncio.to_thread(PythiaRunner.load, settings) as served:
        for _ in range(0 if options.only else options.rounds):
            rows.append({"what": "beside a stream"} | await _round(served, shelf.entries()[1]))
        for _ in range(options.rounds):
            rows.append({"what": "alone"} | await _alone(served, shelf.entries()[1]))
        if options.trace:
            rows += _readings(shelf.entries()[1])
            for _ in range(2):
                rows.append({"what": "trace"} | await _traced(served, shelf.entries()[1]))
    return rows


def _readings(entry: ShelfEntry) -> list[dict[str, Any]]:
    """What the disk gives to others: files, then pieces of files, at a time."""
    rows = []
    ways: list[tuple[str, Callable[[Path, int, int], int], int, int]] = [
        ("files", read_weights, jobs, chunk)
        for jobs, chunk in ((1, 20), (2, 20), (4, 20), (4, 22), (8, 22))
    ]
    ways += [("pieces", read_pieces, jobs, 22) for jobs in (4, 16)]
    for what, read, jobs, chunk in ways:
        forget(entry.path)
        began = time.perf_counter()
        read(entry.path, jobs, 1 << chunk)
        took = round((time.perf_counter() - began) * 1e3, 1)
        rows.append({"what": "reading", f"{what}_at_a_time": jobs, "chunk": 1 << chunk, "ms": took})
    return rows


async def _traced(served: PythiaRunner, other: ShelfEntry) -> dict[str, Any]:
    forget(other.path)
    trace = Trace()
    with trace.on():
        await _first_token(served, other.name)
        row = trace.row()
    await served.models.unload(other.name)
    return row


async def _alone(served: PythiaRunner, other: ShelfEntry) -> dict[str, Any]:
    """Nobody else asks anything."""
    forget(other.path)
    began = time.perf_counter()
    size = await asyncio.to_thread(read_weights, other.path)
    reading = time.perf_counter() - began
    forget(other.path)
    seconds = await _first_token(served, other.name)
    await served.models.unload(other.name)
    return {
        "bytes": size,
        "reading_ms": round(reading * 1e3, 1),
        "answer_after_ms": round(seconds * 1e3, 1),
        "ratio": round(seconds / reading, 3),
    }


async def _round(served: PythiaRunner, entry: ShelfEntry) -> dict[str, Any]:
    other = entry.name
    forget(entry.path)
    tokens = TOKENS[served.settings.device]
    params = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    request = Request(new_request_id(), tuple(range(100, 132)), params)
    times: list[float] = []
    asking: asyncio.Task[float] | None = None
    asked, count = 0.0, 0
    async for output in served.generate(request):
        times.append(time.perf_counter())
        count += len(output.token_ids)
        if asking is None and count >= tokens // BEFORE:
            asking, asked = asyncio.create_task(_first_token(served, other)), times[-1]
    assert asking is not None
    seconds = await asking
    await served.models.unload(other)
    gaps = [(b, b - a) for a, b in itertools.pairwise(times)]
    alone = [gap for at, gap in gaps if at <= asked]
    loaded = [gap for at, gap in gaps if asked < at <= asked + seconds]
    step = statistics.median(alone)
    return {
        "step_ms": round(step * 1e3, 2),
        "longest_gap_alone_ms": round(max(alone) * 1e3, 2),
        "longest_gap_while_loading_ms": round(max(loaded) * 1e3, 2),
        "aim_ms": round((2 * step + AIM_SECONDS) * 1e3, 2),
        "answer_after_ms": round(seconds * 1e3, 1),
    }


async def _first_token(served: PythiaRunner, name: str) -> float:
    """Seconds to a cold checkpoint's first token."""
    began = time.perf_counter()
    other = await served.served(name)
    params = SamplingParams(max_tokens=1, temperature=0.0)
    [[answer]] = await other.complete([Request(new_request_id(), (5, 6, 7), params)])
    raise_error(answer)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
