"""Sweeps over checkpoints: how much of a sweep's time is loading and computing, and not waiting.

``python -m bench.sweeps [--device cuda] [--only cold,tasks,resident]``: random checkpoints in
pythia-1b's shape, each in files of its own that are not in the system's cache, are scored with 100
and with 1,000 texts of 128 tokens. *Efficiency* is the longer of two times, that in which the disk
gives all bytes and that in which one checkpoint on the device answers as often, over the sweep's;
the aim is 0.85. Then what single checkpoints take (extraction of 10,000 texts of 32 + 32 tokens,
1,000 texts scored), and one text of 64 tokens at 154 checkpoints on the device.
``--device cpu`` tries all of it on few checkpoints of pythia-14m's shape.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.common.directories import Directories, forget, read_weights
from bench.common.options import parser_of
from bench.common.random_model import write_int8
from bench.gpu import harness
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf import entry_of
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.runtime import loading, runner
from pythia_bento.runtime.backend import SWITCH_SECONDS
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from pythia_bento.sweep.events import Failed, Row
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import ExtractTask, Item, ScoreTask, SweepSpec

TOKENS = 50_000  # ids below this one are the tokenizer's
PARTS = ("cold", "tasks", "resident")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of what is measured."""

    model: str
    checkpoints: int  # in files of their own
    texts: tuple[int, ...]
    tokens: int  # of each of these
    extracted: int
    small: str  # whose steps are all on the device
    steps: int
    cache_gb: float


FULL = Sizes("pythia-1b", 40, (100, 1000), 128, 10_000, "pythia-410m", 154, 8.0)
TINY = Sizes("pythia-14m", 3, (4, 8), 16, 6, "pythia-14m", 5, 0.05)


@dataclass(frozen=True, slots=True)
class Swept:
    """One sweep."""

    seconds: float
    first_row: float  # seconds
    rows: int


def main() -> None:
    """All parts; the file is written after each."""
    parser = parser_of("bench.sweeps", __doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--checkpoints", type=int, help="with files of their own")
    parser.add_argument("--out")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)  # as servers and commands do
    sizes = TINY if options.device == "cpu" else FULL
    if options.checkpoints:
        sizes = replace(sizes, checkpoints=options.checkpoints)
    rows: list[dict[str, Any]] = []
    for part in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for row in PARTS_BY_NAME[part](sizes, options.device, Path(folder)):
                rows.append(row)
                print(json.dumps(row), flush=True)
                if options.out is not None:
                    harness.write(options.out, rows)


def cold(sizes: Sizes, device: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Every checkpoint comes from the disk."""
    entries = _entries(sizes, device, folder)
    names = [entry.name for entry in entries]
    others = entries[1:]  # the first is on the device from the start
    with _runner(sizes, device, entries) as served:
        for texts in sizes.texts:
            items = _items(texts, sizes.tokens)
            for entry in others:
                asyncio.run(served.models.unload(entry.name))
                forget(entry.path)
            start = time.perf_counter()
            size = sum(read_weights(entry.path) for entry in others[:4])
            rate = size / (time.perf_counter() - start)
            for entry in others[:4]:
                forget(entry.path)
            one = _sweep(served, items, names[:1])
            swept = _sweep(served, items, names[1:])
            total = size / len(others[:4]) * len(others)
            loads, compute = total / rate, one.seconds * len(others)
            yield {
                "what": "cold",
                "model": sizes.model,
                "checkpoints": len(others),
                "texts": texts,
                "tokens": sizes.tokens,
                "bytes": round(total),
                "seconds": round(swept.seconds, 2),
                "reading_s": round(loads, 2),
                "read_gb_per_s": round(rate / 1e9, 2),
                "compute_s": round(compute, 2),
                "efficiency": round(max(loads, compute) / swept.seconds, 3),
                "loads_gb_per_s": round(total / swept.seconds / 1e9, 2),
                "tokens_per_s": round(len(others) * texts * sizes.tokens / swept.seconds),
            }


def tasks(sizes: Sizes, device: str, folder: Path) -> Iterator[dict[str, Any]]:
    """One checkpoint on the device."""
    entries = _entries(replace(sizes, checkpoints=1), device, folder)
    extract = ExtractTask(prompt_tokens=sizes.tokens // 4, tokens=sizes.tokens // 4)
    with _runner(sizes, device, entries) as served:
        for task, texts, tokens in (
            (extract, sizes.extracted, sizes.tokens // 2),
            (ScoreTask(), sizes.texts[-1], sizes.tokens),
            (ScoreTask(tokens=True), sizes.texts[-1], sizes.tokens),
        ):
            items = _items(texts, tokens)
            runs = [_sweep(served, items, [entries[0].name], task) for _ in range(2)]
            best = min(runs, key=lambda swept: swept.seconds)
            yield {
                "what": task.type + (" with tokens" if getattr(task, "tokens", 0) is True else ""),
                "model": sizes.model,
                "texts": texts,
                "tokens": tokens,
                "seconds": round(best.seconds, 3),
                "tokens_per_s": round(texts * tokens / best.seconds),
            }


def resident(sizes: Sizes, device: str, folder: Path) -> Iterator[dict[str, Any]]:
    """One text at many checkpoints that are on the device, all with the weights of one file."""
    path = folder / "0"
    write_int8(sizes.small, path, torch.device(device))
    entry = entry_of(load_checkpoint(str(path)))
    entries = [_named(entry, step) for step in range(sizes.steps)]
    names, items = [one.name for one in entries], _items(1, sizes.tokens // 2)
    with _runner(sizes, device, entries) as served:
        loaded = _sweep(served, items, names)
        runs = [_sweep(served, items, names) for _ in range(5)]
        yield {
            "what": "resident",
            "model": sizes.small,
            "checkpoints": len(names),
            "tokens": sizes.tokens // 2,
            "with_loads_s": round(loaded.seconds, 2),
            "seconds": sorted(round(swept.seconds, 4) for swept in runs),
            "first_row_ms": sorted(round(swept.first_row * 1e3, 2) for swept in runs),
        }


PARTS_BY_NAME = {part.__name__: part for part in (cold, tasks, resident)}


def _named(entry: ShelfEntry, step: int) -> ShelfEntry:
    """The same files as weights of their own."""
    name = f"step{step}"
    return replace(entry, name=name, names=(name,), weights=f"{step:04d}{entry.weights[4:]}")


def _entries(sizes: Sizes, device: str, folder: Path) -> list[ShelfEntry]:
    """Checkpoints that differ in one weight, which is enough for other hashes."""
    first = folder / "0"
    write_int8(sizes.model, first, torch.device(device))
    paths = [first, *(folder / str(number) for number in range(1, sizes.checkpoints))]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: _copy(first, path), paths[1:]))
        return list(pool.map(lambda path: entry_of(load_checkpoint(str(path))), paths))


def _copy(first: Path, path: Path) -> None:
    shutil.copytree(first, path)
    weights = sorted(path.glob("*.safetensors"))[0]
    with weights.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        begin = min(
            tensor["data_offsets"][0]
            for name, tensor in header.items()
            if name != "__metadata__" and tensor["dtype"] == "I8"
        )
        file.seek(8 + length + begin)
        file.write(struct.pack("<4B", *int(path.name).to_bytes(4, "little")))


@contextmanager
def _runner(sizes: Sizes, device: str, entries: list[ShelfEntry]) -> Iterator[PythiaRunner]:
    """Of the first; the others are asked by name."""
    shelf = Directories(entries)
    before = loading.shelf_of
    loading.shelf_of = runner.shelf_of = lambda settings, entry: shelf  # type: ignore[assignment]
    settings = Settings(
        model=str(entries[0].path), device=device, kv_cache_gb=sizes.cache_gb, host_models_gb=0.0
    )
    try:
        with PythiaRunner.load(settings) as served:
            yield served
    finally:
        loading.shelf_of = runner.shelf_of = before  # type: ignore[assignment]


def _items(count: int, tokens: int) -> tuple[Item, ...]:
    draw = random.Random(count)
    return tuple(
        Item(prompt=[draw.randrange(100, TOKENS) for _ in range(tokens)]) for _ in range(count)
    )


def _sweep(
    served: PythiaRunner,
    items: tuple[Item, ...],
    names: Sequence[str],
    task: ScoreTask | ExtractTask | None = None,
) -> Swept:
    spec = SweepSpec(models=tuple(names), items=items, task=task or ScoreTask())
    return asyncio.run(_run(served, spec))


async def _run(served: PythiaRunner, spec: SweepSpec) -> Swept:
    start, first, rows = time.perf_counter(), 0.0, 0
    async with aclosing(run(spec, Here(served))) as events:
        async for event in events:
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Row):
                rows += 1
                assert event.error is None
                first = first or time.perf_counter() - start
    assert rows == len(spec.items) * len(spec.models or ())
    return Swept(time.perf_counter() - start, first, rows)


if __name__ == "__main__":
    main()
