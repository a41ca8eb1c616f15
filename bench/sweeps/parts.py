"""What a sweep takes: from the disk, of one checkpoint, and over many that are on the device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.common.directories import forget, read_weights
from bench.common.random_model import write_int8
from bench.sweeps.stage import Sizes, entries_of, items_of, runner_of, sweep
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf import entry_of
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.sweep.spec import ExtractTask, ScoreTask


def cold(sizes: Sizes, device: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Every checkpoint comes from the disk."""
    entries = entries_of(sizes, device, folder)
    names = [entry.name for entry in entries]
    others = entries[1:]  # the first is on the device from the start
    with runner_of(sizes, device, entries) as served:
        for texts in sizes.texts:
            items = items_of(texts, sizes.tokens)
            for entry in others:
                asyncio.run(served.models.unload(entry.name))
                forget(entry.path)
            start = time.perf_counter()
            size = sum(read_weights(entry.path) for entry in others[:4])
            rate = size / (time.perf_counter() - start)
            for entry in others[:4]:
                forget(entry.path)
            one = sweep(served, items, names[:1])
            before = served.stats().group
            swept = sweep(served, items, names[1:])
            after = served.stats().group
            in_loads = (after.load_microseconds_disk - before.load_microseconds_disk) / 1e6
            assert sum(after.load_times_disk) - sum(before.load_times_disk) == len(others)
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
                "in_loads_s": round(in_loads, 2),
                "efficiency": round(max(loads, compute) / swept.seconds, 3),
                "loads_gb_per_s": round(total / swept.seconds / 1e9, 2),
                "tokens_per_s": round(len(others) * texts * sizes.tokens / swept.seconds),
            }


def tasks(sizes: Sizes, device: str, folder: Path) -> Iterator[dict[str, Any]]:
    """One checkpoint on the device."""
    entries = entries_of(replace(sizes, checkpoints=1), device, folder)
    extract = ExtractTask(prompt_tokens=sizes.tokens // 4, tokens=sizes.tokens // 4)
    with runner_of(sizes, device, entries) as served:
        for task, texts, tokens in (
            (extract, sizes.extracted, sizes.tokens // 2),
            (ScoreTask(), sizes.texts[-1], sizes.tokens),
            (ScoreTask(tokens=True), sizes.texts[-1], sizes.tokens),
        ):
            items = items_of(texts, tokens)
            runs = [sweep(served, items, [entries[0].name], task) for _ in range(2)]
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
    names, items = [one.name for one in entries], items_of(1, sizes.tokens // 2)
    with runner_of(sizes, device, entries) as served:
        loaded = sweep(served, items, names)
        runs = [sweep(served, items, names) for _ in range(5)]
        yield {
            "what": "resident",
            "model": sizes.small,
            "checkpoints": len(names),
            "tokens": sizes.tokens // 2,
            "with_loads_s": round(loaded.seconds, 2),
            "seconds": sorted(round(swept.seconds, 4) for swept in runs),
            "first_row_ms": sorted(round(swept.first_row * 1e3, 2) for swept in runs),
        }


def _named(entry: ShelfEntry, step: int) -> ShelfEntry:
    """The same files as weights of their own."""
    name = f"step{step}"
    return replace(entry, name=name, names=(name,), weights=f"{step:04d}{entry.weights[4:]}")
