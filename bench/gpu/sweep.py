"""Tile sweep of every Triton kernel on one GPU: time against the floor, and whether bits agree.

``python -m bench.gpu.sweep --out FILE [--model pythia-1b] [--kinds in,out,...]``. Configurations
are compiled in parallel first. Times are medians of graph replays over all layers, so that weights
come from memory and not from the cache.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
import triton
from torch import Tensor

from bench.common.random_model import random_layer
from bench.gpu.graphs import layer_us
from pythia_bento import catalog
from pythia_bento.model.kernels.gpu.kernels import TritonKernels
from pythia_bento.model.kernels.gpu.packing import CHUNKS
from pythia_bento.model.kernels.gpu.tiles import Tile

DEVICE = torch.device("cuda")


def narrow_tiles(tokens: int) -> Iterator[Tile]:
    """Candidates for ``products``."""
    if tokens <= 8:
        for stages in (3, 4, 6, 8):
            yield Tile(16, 8, stages, 1)
            yield Tile(32, 8, stages, 1)
            yield Tile(32, 8, stages, 2)
            yield Tile(64, 8, stages, 4)
            yield Tile(128, 8, stages, 4)
    elif tokens <= 64:
        for stages in (3, 4, 6):
            yield Tile(16, tokens, stages, 1)
            yield Tile(32, tokens, stages, 2)
            yield Tile(32, tokens, stages, 4)
            yield Tile(64, tokens, stages, 4)
            yield Tile(128, tokens, stages, 4)
            yield Tile(128, tokens, stages, 8)
    else:
        for rows, width, warps in (
            (64, 128, 4),
            (128, 128, 4),
            (128, 128, 8),
            (128, 64, 4),
            (64, 64, 4),
            (64, 256, 4),
            (128, 256, 8),
        ):
            for stages in (2, 3, 4):
                yield Tile(rows, width, stages, warps)


def wide_tiles() -> Iterator[Tile]:
    """Candidates for ``prefill``."""
    for rows, width, warps in ((128, 128, 4), (128, 128, 8), (128, 256, 8), (256, 128, 8)):
        for depth, stages in ((64, 3), (64, 4), (128, 2)):
            yield Tile(rows, width, stages, warps, depth)


class Rig:
    """Random weights of a model, and one method for each kernel."""

    def __init__(self, model: str, layers: int, most: int) -> None:
        self.config = catalog.config(model)
        self.kernels = TritonKernels(self.config, DEVICE)
        self.launch = self.kernels.launch
        self.count = min(layers, self.config.num_layers)
        self.layers = [
            self.kernels.load_layer(random_layer(self.config, i, DEVICE)) for i in range(self.count)
        ]
        torch.manual_seed(0)
        config, half = self.config, {"dtype": torch.float16, "device": DEVICE}
        self.h = torch.randn(2, most, config.hidden_size, **half)
        self.up_in = torch.randn(most, config.intermediate_size, **half) * 0.5
        self.attended = torch.randn(most, config.hidden_size, **half) * 0.5
        self.scratch = torch.empty(
            config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size), **half
        )

    def in_product(self, tokens: int, tile: Tile | None) -> tuple[Callable[[int], Any], Callable]:
        qkv, up = self._outputs(tokens)
        h = self.h[:, :tokens].contiguous()
        return (
            lambda i: self.launch.in_product(self.layers[i], h, qkv, up, tile),
            lambda: [qkv, up],
        )

    def prefill_in(self, tokens: int, tile: Tile) -> tuple[Callable[[int], Any], Callable]:
        qkv, up = self._outputs(tokens)
        h = self.h[:, :tokens].contiguous()
        return (
            lambda i: self.launch.prefill_in(self.layers[i], h, qkv, up, self.scratch, tile),
            lambda: [qkv, up],
        )

    def out_partial(self, tokens: int, tile: Tile | None) -> tuple[Callable[[int], Any], Callable]:
        hidden = self.config.hidden_size
        parts = torch.full((1 + CHUNKS, tokens, hidden), math.nan, device=DEVICE)
        attended, up = self.attended[:tokens], self.up_in[:tokens]

        def result() -> list[Tensor]:
            x = torch.zeros(tokens, hidden, device=DEVICE)
            layer = self.layers[0]
            self.launch.norm(layer.norms[:0], x, x, parts=parts, layer=layer)
            return [x]

        return (
            lambda i: self.launch.out_partial(self.layers[i], attended, up, parts, tile=tile),
            result,
        )

    def prefill_out(self, tokens: int, tile: Tile) -> tuple[Callable[[int], Any], Callable]:
        x = torch.zeros(tokens, self.config.hidden_size, device=DEVICE)
        attended, up = self.attended[:tokens], self.up_in[:tokens]
        return (
            lambda i: self.launch.prefill_out(self.layers[i], attended, up, x, self.scratch, tile),
            lambda: [x],
        )

    def _outputs(self, tokens: int) -> tuple[Tensor, Tensor]:
        config, half = self.config, {"dtype": torch.float16, "device": DEVICE}
        qkv = torch.full((tokens, 3 * config.hidden_size), math.nan, **half)
        return qkv, torch.full((tokens, config.intermediate_size), math.nan, **half)


def compile_one(job: tuple[str, str, int, Tile]) -> str:
    """In a process of its own: put one configuration into Triton's cache, launch nothing."""
    model, kind, tokens, tile = job
    run = triton.runtime.jit.JITFunction.run
    triton.runtime.jit.JITFunction.run = lambda self, *a, grid, warmup, **k: run(
        self, *a, grid=grid, warmup=True, **k
    )
    try:
        rig = _RIGS.get(model) or _RIGS.setdefault(model, Rig(model, 1, 512))
        call, _ = getattr(rig, kind)(min(tokens, 512), tile)
        call(0)
    except Exception as error:
        return f"{job}: {str(error)[:120]}"
    finally:
        triton.runtime.jit.JITFunction.run = run
    return ""


_RIGS: dict[str, Rig] = {}


def bytes_of(rig: Rig, kind: str) -> int:
    """Weights read once."""
    hidden, inner = rig.config.hidden_size, rig.config.intermediate_size
    return (
        hidden * (3 * hidden + inner)
        if kind.endswith(("in_product", "_in"))
        else hidden * (hidden + inner)
    )


def sweep(model: str, kinds: list[str], sizes: list[int], workers: int) -> list[dict[str, Any]]:
    """Time all candidates of all products; check bits against the first candidate's."""
    jobs: list[tuple[str, str, int, Tile]] = []
    for kind in kinds:
        for tokens in sizes:
            is_wide = kind.startswith("prefill")
            if is_wide == (tokens > 256):
                tiles = wide_tiles() if is_wide else narrow_tiles(tokens)
                jobs += [(model, kind, tokens, tile) for tile in tiles]
    started = time.time()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        failed = [line for line in pool.map(compile_one, jobs, chunksize=1) if line]
    print(
        f"compiled {len(jobs)} in {time.time() - started:.0f} s, {len(failed)} failed", flush=True
    )
    for line in failed:
        print("  ", line)
    rig = Rig(model, 16, max(sizes))
    results = []
    references: dict[str, list[Tensor]] = {}
    for kind in kinds:
        narrow = {"prefill_in": "in_product", "prefill_out": "out_partial"}.get(kind, kind)
        call, outputs = getattr(rig, narrow)(256, Tile(32, 64, 3, 2))
        call(0)
        references[kind] = [o.clone() for o in outputs()]
    best: dict[tuple[str, int], tuple[float, Any]] = {}
    for _, kind, tokens, tile in jobs:
        try:
            call, outputs = getattr(rig, kind)(tokens, tile)
            call(0)
            torch.cuda.synchronize()
            rows = min(tokens, 256)
            same = all(
                torch.equal(out[:rows], ref[:rows])
                for out, ref in zip(outputs(), references[kind], strict=True)
            )
            micro = layer_us(call, rig.count)
        except Exception as error:
            print(kind, tokens, tuple(tile), "failed", str(error)[:100].replace("\n", " "))
            continue
        flops = 2.0 * bytes_of(rig, kind) * tokens
        row = {
            "kind": kind,
            "tokens": tokens,
            "tile": list(tile),
            "us": round(micro, 2),
            "gb_per_s": round(bytes_of(rig, kind) / micro / 1e3, 1),
            "tflops": round(flops / micro / 1e6, 1),
            "same_bits": same,
        }
        results.append(row)
        key = (kind, tokens)
        if key not in best or micro < best[key][0]:
            best[key] = (micro, row)
    for kind in kinds:
        for tokens in sizes:
            if (kind, tokens) not in best:
                continue
            rows = sorted(
                (r for r in results if r["kind"] == kind and r["tokens"] == tokens),
                key=lambda r: r["us"],
            )
            for r in rows[:6]:
                print(
                    kind,
                    tokens,
                    r["tile"],
                    r["us"],
                    "us",
                    r["gb_per_s"],
                    "GB/s",
                    r["tflops"],
                    "TFLOP/s",
                    "same" if r["same_bits"] else "DIFFERENT",
                    flush=True,
                )
            print("   different:", [r["tile"] for r in rows if not r["same_bits"]][:40])
    return results


def main() -> None:
    """Parse arguments, run, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="pythia-1b")
    parser.add_argument("--out", default="sweep.json")
    parser.add_argument("--kinds", default="in_product,out_partial,prefill_in,prefill_out")
    parser.add_argument("--sizes", default="1,8,32,128,256,16384")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    results = sweep(args.model, args.kinds.split(","), sizes, args.workers)
    with open(args.out, "w") as file:
        json.dump({"machine": torch.cuda.get_device_name(), "results": results}, file)


if __name__ == "__main__":
    sys.exit(main())
