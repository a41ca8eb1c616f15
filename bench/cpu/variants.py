"""The kernels of every instruction set that this machine runs: the same bits, and how fast.

``python -m bench.cpu.variants``. Compares all of them over random and extreme weights and rows, by
numbers of tokens on both sides of every tile's edge, then times a layer and a part of the head. The
exit status is 1 where a bit differs. It needs torch and the compiled kernels, or a compiler.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.common import machine
from bench.common.options import parser_of
from bench.common.random_model import RandomModel
from pythia_bento import catalog
from pythia_bento.hardware import usable_cores
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cpu import build
from pythia_bento.model.kernels.cpu.kernels import CpuKernels
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights

TOKENS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 40)
TIMED = (1, 2, 4, 8, 16, 32, 128, 512)
HEAD_ROWS = 5120  # of a vocabulary, where it is timed


def main() -> None:
    options = _options()
    _show_machine()
    checks = [_same(size, kind) for size in options.sizes for kind in ("random", "extreme")]
    same = all(checks)
    rows = [] if options.only_bits else [*_timed(options)]
    record = {"machine": machine.describe(), "versions": machine.versions(), "same_bits": same}
    if options.out:
        options.out.write_text(json.dumps({**record, "results": rows}, indent=1) + "\n")
    sys.exit(not same)


def _options() -> argparse.Namespace:
    parser = parser_of("bench.cpu.variants", __doc__)
    sizes = ((16, 1), (80, 3), (64, 2), (80, 7), (64, 16))
    parser.set_defaults(sizes=sizes)
    parser.add_argument("--models", nargs="+", default=("pythia-160m", "pythia-1b"))
    parser.add_argument("--threads", type=int, nargs="+", default=[usable_cores()])
    parser.add_argument("--seconds", type=float, default=0.3, help="of each figure")
    parser.add_argument("--only-bits", action="store_true")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _show_machine() -> None:
    commands = (["lscpu"], ["g++", "--version"], ["clang++", "--version"])
    for command in commands:
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True)
            print(done.stdout.strip(), flush=True)
    print(f"variants: {', '.join(build.supported())}; {usable_cores()} cores", flush=True)


def _same(size: tuple[int, int], kind: str) -> bool:
    """Whether all variants agree on a model of this head size and number of heads."""
    head_dim, heads = size
    hidden = head_dim * heads
    config = ModelConfig(1, hidden, heads, 4 * hidden, 203, 256, head_dim // 4)
    model, same = _weights(config, kind), True
    for tokens in TOKENS:
        found = {isa: _computed(isa, config, *model, tokens) for isa in build.supported()}
        want = next(iter(found.values()))
        for isa, outputs in found.items():
            equal = all(torch.equal(a, b) for a, b in zip(want, outputs, strict=True))
            if not equal:
                print(f"DIFFERENT: {isa}, {kind}, hidden {hidden}, {tokens} tokens", flush=True)
            same &= equal
    print(f"{'same bits' if same else 'DIFFERENT'}: {kind}, hidden {hidden}", flush=True)
    return same


def _weights(config: ModelConfig, kind: str) -> tuple[LayerWeights, HeadWeights]:
    model = RandomModel(config, torch.device("cpu"))
    layer, head = model.layer(0), model.head()
    if kind == "random":
        return layer, head
    linears = (_extreme(w) for w in (layer.qkv, layer.dense, layer.up, layer.down))
    return LayerWeights(layer.input_norm, layer.post_attention_norm, *linears), head


def _extreme(linear: Int8Linear) -> Int8Linear:
    """The largest weights of either sign, and of both in turn: sums beyond what fp32 holds."""
    weight = torch.full_like(linear.weight, 127)
    weight[1::3] = -128
    weight[2::3, ::2] = -127
    return Int8Linear(weight, linear.scb, linear.bias)


def _computed(
    isa: str, config: ModelConfig, layer: LayerWeights, head: HeadWeights, tokens: int
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, config.hidden_size, generator=generator)
    x *= torch.logspace(-3, 3, tokens)[:, None]
    wide = torch.full((tokens, config.intermediate_size), 3.0)
    kernels = CpuKernels(config, isa=isa, threads=3)
    packed = kernels.load_layer(layer)
    qkv, up = kernels.project_in(packed, x)
    given = qkv.clone()
    attended = kernels.attend(0, qkv, kernels.allocate_cache(-(-tokens // 16)), _batch(tokens))
    y = kernels.project_out(packed, x.clone(), attended, up)
    large = kernels.project_out(packed, x.clone(), attended, wide)
    return [given, up, attended, y, large, kernels.logits(kernels.load_head(head), y)]


def _batch(tokens: int) -> ForwardBatch:
    """One sequence from its start."""
    places = torch.arange(tokens, dtype=torch.int32)
    ends = torch.tensor([0, tokens], dtype=torch.int32)
    table = torch.arange(-(-tokens // 16), dtype=torch.int32)[None]
    return ForwardBatch(torch.zeros_like(places), places, places, ends, ends[1:].clone(), table)


def _timed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    torch.set_num_threads(1)
    for name in options.models:
        config = catalog.config(name)
        model = RandomModel(config, torch.device("cpu"))
        layer, head = model.layer(0), model.head()
        part = HeadWeights(head.norm, head.weight[:HEAD_ROWS].clone())
        for threads in options.threads:
            for isa in build.supported():
                kernels = CpuKernels(config, isa=isa, threads=threads)
                yield from _timed_variant(name, kernels, layer, part, options.seconds)


def _timed_variant(
    name: str, kernels: CpuKernels, layer: LayerWeights, head: HeadWeights, seconds: float
) -> Iterator[dict[str, Any]]:
    """More layers than caches hold, in turn: weights come from memory as in a pass."""
    hidden = kernels.config.hidden_size
    bytes_a_layer = 12 * hidden * hidden
    layers = [kernels.load_layer(layer) for _ in range(max(1, (192 << 20) // bytes_a_layer))]
    packed = kernels.load_head(head)
    for tokens in TIMED:
        x = torch.randn(tokens, hidden)

        def linears(x: Tensor = x) -> None:
            for one in layers:
                qkv, up = kernels.project_in(one, x)
                kernels.project_out(one, x.clone(), qkv[:, :hidden].contiguous(), up)

        def logits(x: Tensor = x) -> None:
            kernels.logits(packed, x)

        row = {"model": name, "isa": kernels.isa, "threads": kernels.threads, "tokens": tokens}
        row["layer_us"] = round(_best(linears, seconds) / len(layers) * 1e6, 1)
        row["layer_gmac_per_s"] = round(bytes_a_layer * tokens / row["layer_us"] / 1e3, 1)
        row["weights_gb_per_s"] = round(bytes_a_layer / row["layer_us"] / 1e3, 1)
        row["head_us"] = round(_best(logits, seconds) * 1e6, 1)
        row["head_gmac_per_s"] = round(HEAD_ROWS * hidden * tokens / row["head_us"] / 1e3, 1)
        print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        yield row


def _best(run: Callable[[], None], seconds: float) -> float:
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begun)
    return best


if __name__ == "__main__":
    main()
