"""Random checkpoints, a runner of them, and sweeps over it."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.common.directories import Directories
from bench.common.random_model import write_int8
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf import entry_of
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.runtime import loading
from pythia_bento.runtime import runner as runtime_runner
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from pythia_bento.sweep.events import Failed, Row
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import ExtractTask, Item, ScoreTask, SweepSpec

TOKENS = 50_000  # ids below this one are the tokenizer's


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


def entries_of(sizes: Sizes, device: str, folder: Path) -> list[ShelfEntry]:
    """Checkpoints that differ in one weight, which is enough for other hashes."""
    first = folder / "0"
    write_int8(sizes.model, first, torch.device(device))
    paths = [first, *(folder / str(number) for number in range(1, sizes.checkpoints))]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: _copy(first, path), paths[1:]))
        return list(pool.map(lambda path: entry_of(load_checkpoint(str(path))), paths))


def _copy(first: Path, path: Path) -> None:
    shutil.copytree(first, path)
    change(path)


def change(path: Path) -> None:
    """Write the number that is a checkpoint's name into one of its weights."""
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
def runner_of(sizes: Sizes, device: str, entries: list[ShelfEntry]) -> Iterator[PythiaRunner]:
    """Of the first; the others are asked by name."""
    shelf = Directories(entries)
    before = loading.shelf_of
    loading.shelf_of = runtime_runner.shelf_of = lambda settings, entry: shelf  # type: ignore[assignment]
    settings = Settings(
        model=str(entries[0].path), device=device, kv_cache_gb=sizes.cache_gb, host_models_gb=0.0
    )
    try:
        with PythiaRunner.load(settings) as served:
            yield served
    finally:
        loading.shelf_of = runtime_runner.shelf_of = before  # type: ignore[assignment]


def items_of(count: int, tokens: int) -> tuple[Item, ...]:
    draw = random.Random(count)
    return tuple(
        Item(prompt=[draw.randrange(100, TOKENS) for _ in range(tokens)]) for _ in range(count)
    )


def sweep(
    served: PythiaRunner,
    items: tuple[Item, ...],
    names: Sequence[str],
    task: ScoreTask | ExtractTask | None = None,
) -> Swept:
    spec = SweepSpec(models=tuple(names), items=items, task=task or ScoreTask())
    return asyncio.run(told(served, spec))


async def told(served: PythiaRunner, spec: SweepSpec) -> Swept:
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
