"""Checkpoints for several engines behind one front, and sweeps over them.

Engines have processes of their own, so what stands in the shelf's place is named by a folder.
``python -m bench.serving.replica_stage MODEL FOLDER COUNT DEVICE`` writes one.
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from bench.common.directories import Directories
from bench.common.random_model import write_int8
from bench.sweeps.stage import change, items_of, sweep
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf import entry_of
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.group import EngineGroup
from pythia_bento.runtime import loading, process, runner
from pythia_bento.runtime.model_info import ModelInfo, Progress
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings

FOLDER = "BENCH_CHECKPOINTS"
ENTRIES = "entries"  # a file beside them


def written(model: str, folder: Path, count: int, device: str) -> None:
    """``write`` in a process that takes no memory of the device afterwards."""
    command = [sys.executable, "-m", "bench.serving.replica_stage"]
    subprocess.run([*command, model, str(folder), str(count), device], check=True)


def write(model: str, folder: Path, count: int, device: str) -> None:
    """Checkpoints that differ in one weight, in one file: others are one on the disk."""
    first = folder / "0"
    write_int8(model, first, torch.device(device))
    for number in range(1, count):
        path = folder / str(number)
        path.mkdir()
        changed = min(first.glob("*.safetensors"))
        for file in first.iterdir():
            if file == changed:
                shutil.copy(file, path / file.name)
            else:
                os.link(file, path / file.name)
        change(path)
    paths = [folder / str(number) for number in range(count)]
    with ThreadPoolExecutor(16) as threads:  # hashing them takes long, so it is done once
        found = list(threads.map(lambda path: entry_of(load_checkpoint(str(path))), paths))
    (folder / ENTRIES).write_bytes(pickle.dumps(found))


@cache
def entries(folder: str) -> list[ShelfEntry]:
    """By number."""
    found: list[ShelfEntry] = pickle.loads((Path(folder) / ENTRIES).read_bytes())
    return found


def _shelf_of(settings: Settings, entry: ShelfEntry | None) -> Directories:
    return Directories(entries(os.environ[FOLDER]))


def load(settings: Settings, on_progress: Progress) -> tuple[Engine | EngineGroup, ModelInfo]:
    """``load_engine``, by a name that brings this module into an engine's own process."""
    loading.shelf_of = _shelf_of  # type: ignore[assignment]
    return loading.load_engine(settings, on_progress)


@contextmanager
def runner_of(folder: Path, devices: str, cache_gb: float) -> Iterator[PythiaRunner]:
    """Of all checkpoints in a folder."""
    os.environ[FOLDER] = str(folder)
    runner.shelf_of = _shelf_of  # type: ignore[assignment]
    process.load_engine = load
    settings = Settings(
        model=str(folder / "0"),
        devices=devices,
        kv_cache_gb=cache_gb,
        host_models_gb=0.0,
        stall_seconds=0,
    )
    with PythiaRunner.load(settings) as served:
        yield served


def swept(served: PythiaRunner, count: int, texts: int, tokens: int) -> dict[str, float]:
    """A sweep over the first ``count`` of them."""
    names = [entry.name for entry in entries(os.environ[FOLDER])[:count]]
    random.Random(count).shuffle(names)
    before = served.stats()
    began = time.perf_counter()
    done = sweep(served, items_of(texts, tokens), names)
    after = served.stats()
    return {
        "seconds": round(time.perf_counter() - began, 3),
        "first_row_s": round(done.first_row, 3),
        "loads": after.group.loads_disk - before.group.loads_disk,
        "evictions": after.group.evictions - before.group.evictions,
    }


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
