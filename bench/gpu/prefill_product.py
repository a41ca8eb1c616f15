"""Products of many tokens by the CUDA kernels against Triton's: every bit, then the speed.

``python -m bench.gpu.prefill_product [--models pythia-1b,...] [--tokens 300,...] [--checked]``.
Exits 1 where a bit differs. ``--checked`` builds kernels whose waits end in an error after two
seconds.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.gpu import harness
from bench.gpu.graphs import layer_us
from bench.gpu.sweep import Rig
from pythia_bento import catalog
from pythia_bento.model.kernels.gpu import tiles
from pythia_bento.model.kernels.gpu.cuda import prefill_constants as source
from pythia_bento.model.kernels.gpu.cuda.nvrtc import Source, compiled
from pythia_bento.model.kernels.gpu.packing import CHUNKS
from pythia_bento.model.kernels.gpu.prefill_product import PrefillProducts

KERNELS = ("prefill_in", "prefill_out")


class Variant(NamedTuple):
    """How a kernel is compiled."""

    name: str
    cluster: int
    width: int
    checked: bool = False


def compile_one(job: tuple[str, Variant, int]) -> None:
    """In a process of its own: put one kernel into the cache."""
    model, variant, shared = job
    name, cluster, width, checked = variant
    constants = source.constants_for(catalog.config(model), width, shared, cluster, checked=checked)
    header = {"multiply.cuh": source.multiply_header(width)}
    compiled(Source(source.SOURCES[name], constants, header), "sm_90a")


class Products:
    """Inputs of some tokens, and both kernels in any variant and as Triton's."""

    def __init__(self, rig: Rig, tokens: int) -> None:
        self.rig, self.tokens = rig, tokens
        config, half = rig.config, {"dtype": torch.float16, "device": harness.DEVICE}
        self.h = rig.h[:, :tokens].contiguous()
        self.attended, self.up_in = rig.attended[:tokens], rig.up_in[:tokens]
        self.qkv = torch.empty(tokens, 3 * config.hidden_size, **half)
        self.up = torch.empty(tokens, config.intermediate_size, **half)
        torch.manual_seed(1)
        self.x0 = torch.randn(tokens, config.hidden_size, device=harness.DEVICE)
        self.x = self.x0.clone()

    def triton(self, name: str, index: int) -> None:
        """Widening and product."""
        launch, layer = self.rig.launch, self.rig.layers[index]
        if name == "prefill_in":
            tile = tiles.WIDE_IN
            launch.prefill_in(layer, self.h, self.qkv, self.up, self.rig.scratch, tile)
        else:
            tile = tiles.WIDE_OUT
            launch.prefill_out(layer, self.attended, self.up_in, self.x, self.rig.scratch, tile)

    def widen(self, name: str, index: int) -> Tensor:
        """fp16 weights of a layer."""
        launch, layer, scratch = self.rig.launch, self.rig.layers[index], self.rig.scratch
        hidden = self.rig.config.hidden_size
        if name == "prefill_in":
            return launch._widen(layer.w_in, scratch)
        launch._widen(layer.dense, scratch)
        launch._widen(layer.down.view(CHUNKS * hidden, -1), scratch[hidden * hidden :])
        return scratch[: (1 + CHUNKS) * hidden * hidden].view(-1, hidden)

    def cuda(self, products: PrefillProducts, name: str, index: int, weights: Tensor) -> None:
        """The product alone."""
        layer = self.rig.layers[index]
        if name == "prefill_in":
            products.first(layer, weights, self.h, self.qkv, self.up)
        else:
            products.second(layer, weights, self.attended, self.up_in, self.x)

    def clear(self) -> None:
        """What was not written shall show."""
        self.qkv.fill_(math.nan)
        self.up.fill_(math.nan)
        self.x.copy_(self.x0)

    def results(self, name: str) -> dict[str, Tensor]:
        """Copies of what a kernel wrote."""
        found = {"qkv": self.qkv, "up": self.up} if name == "prefill_in" else {"x": self.x}
        return {key: value.clone() for key, value in found.items()}

    def flops(self, name: str) -> float:
        """Of one call."""
        hidden, inner = self.rig.config.hidden_size, self.rig.config.intermediate_size
        columns = 3 * hidden + inner if name == "prefill_in" else hidden + inner
        return 2.0 * self.tokens * hidden * columns


@functools.cache
def build(model: str, variant: Variant) -> PrefillProducts:
    """Compiled for one width of one kernel."""
    tiles = {variant.name: {variant.width: variant.cluster}}
    return PrefillProducts(
        catalog.config(model), harness.DEVICE, tiles=tiles, checked=variant.checked
    )


def explain(found: Tensor, wanted: Tensor, width: int) -> None:
    """Where two results [T, R] differ, and what the places have in common."""
    bad = _bits(found) != _bits(wanted)
    places = bad.nonzero()
    distance = (found.double() - wanted.double()).abs()
    largest = distance[bad].nan_to_num(math.inf).max()
    print(f"    {len(places)} of {bad.numel()} differ, by up to {float(largest):.6g}")
    print(f"    tokens with a difference: {_ranges(bad.any(1))}; rows: {_ranges(bad.any(0))}")
    for what, index, modulus in (
        ("token % tile", 0, width),
        ("token % 8", 0, 8),
        ("row % 128", 1, 128),
        ("row % 8", 1, 8),
    ):
        counts = Counter((places[:, index] % modulus).tolist())
        print(f"    {what}: {len(counts)} of {modulus} values, most {counts.most_common(6)}")
    for token, row in places[:4].tolist() + places[-2:].tolist():
        pair = [float(values[token, row]) for values in (found, wanted)]
        print(f"    [{token}, {row}] is {pair[0]!r}, not {pair[1]!r}")
    counts = [int(values.isnan().sum()) for values in (found, wanted)]
    print(f"    NaN in the result: {counts[0]}, in the reference: {counts[1]}", flush=True)


def _bits(values: Tensor) -> Tensor:
    return values.view(torch.int16 if values.dtype == torch.float16 else torch.int32)


def _ranges(is_bad: Tensor) -> str:
    at = is_bad.nonzero().flatten()
    return f"{len(at)} of {len(is_bad)}, from {int(at[0])} to {int(at[-1])}"


def check(model: str, rig: Rig, tokens: int, variants: list[Variant]) -> int:
    """Print and count the variants whose bits are not Triton's."""
    products, failures = Products(rig, tokens), 0
    for name in KERNELS:
        products.clear()
        products.triton(name, 0)
        wanted = products.results(name)
        for variant in (v for v in variants if v.name == name):
            products.clear()
            weights = products.widen(name, 0)
            products.cuda(build(model, variant), name, 0, weights)
            torch.cuda.synchronize()
            found = products.results(name)
            same = all(torch.equal(_bits(found[key]), _bits(wanted[key])) for key in wanted)
            failures += not same
            print(model, tokens, *variant, "same" if same else "DIFFERENT", flush=True)
            for key in () if same else wanted:
                if not torch.equal(_bits(found[key]), _bits(wanted[key])):
                    print(f"   {key}")
                    explain(found[key], wanted[key], variant.width)
    return failures


def measure(model: str, rig: Rig, tokens: int, variants: list[Variant]) -> list[dict[str, Any]]:
    """Microseconds and TFLOP/s of every variant, of widening, and of Triton's with widening."""
    products, rows = Products(rig, tokens), []

    def add(name: str, what: str, call: Callable[[int], Any], **more: Any) -> None:
        micro = layer_us(call, rig.count)
        row = {"model": model, "kernel": name, "tokens": tokens, "what": what, **more}
        row |= {"us": round(micro, 2), "tflops": round(products.flops(name) / micro / 1e6, 1)}
        rows.append(row)
        print(*row.values(), flush=True)

    for name in KERNELS:
        products.clear()
        add(name, "triton", lambda i, n=name: products.triton(n, i))
        add(name, "widening", lambda i, n=name: products.widen(n, i))
        for variant in (v for v in variants if v.name == name):
            built, weights = build(model, variant), products.widen(name, 0)
            rounds = built.rounds(name, tokens, variant.width)
            add(
                name,
                "cuda",
                lambda i, b=built, n=name, w=weights: products.cuda(b, n, i, w),
                cluster=variant.cluster,
                width=variant.width,
                rounds=rounds,
            )
    return rows


def variants_of(model: str, widths: list[int], clusters: list[int], checked: bool) -> list[Variant]:
    """All that a model can have."""
    most = source.largest_cluster(catalog.config(model))
    return [
        Variant(name, cluster, width, checked)
        for name in KERNELS
        for cluster in clusters
        if cluster <= most
        for width in widths
    ]


def compile_all(variants: dict[str, list[Variant]], workers: int) -> None:
    """In parallel, into the cache."""
    properties = torch.cuda.get_device_properties(harness.DEVICE)
    shared = int(properties.shared_memory_per_block_optin)
    jobs = {(model, variant, shared) for model, some in variants.items() for variant in some}
    for model in variants:  # what the launcher compiles when it starts
        most = source.largest_cluster(catalog.config(model))
        jobs |= {
            (model, Variant(name, min(cluster, most), width), shared)
            for name in KERNELS
            for width, cluster in source.TILES[name].items()
        }
    started = time.time()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(compile_one, jobs))
    print(f"compiled {len(jobs)} kernels in {time.time() - started:.0f} s", flush=True)


def numbers(text: str) -> list[int]:
    """``1,2`` as a list."""
    return [int(part) for part in text.split(",") if part]


def main() -> int:
    """Parse arguments, check, measure, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="pythia-1b")
    parser.add_argument("--tokens", default="300,257,1000,2048,16384", help="to check")
    parser.add_argument("--timed", default="512,2048,16384", help="tokens to measure")
    parser.add_argument("--widths", default="64,128,184,192")
    parser.add_argument("--clusters", default="1,2")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--checked", action="store_true")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--out", default="bench/results/h200-prefill-product.json")
    args = parser.parse_args()
    checked, timed = numbers(args.tokens), numbers(args.timed)
    widths, clusters = numbers(args.widths), numbers(args.clusters)
    variants = {
        model: variants_of(model, widths, clusters, args.checked)
        for model in args.models.split(",")
    }
    compile_all(variants, args.workers)
    failures, rows = 0, []
    for model, some in variants.items():
        rig = Rig(model, args.layers, max(checked + timed))
        for tokens in checked:
            failures += check(model, rig, tokens, some)
        for tokens in timed:
            rows += measure(model, rig, tokens, some)
    harness.write(args.out, rows, different=failures)
    print(f"{failures} variants differ", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
