"""One captured decode step of the whole model on one GPU: time, and where it goes.

``python -m bench.gpu.step [--model pythia-1b] [--batches 1,8,...] [--context 192]``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from bench.common.random_model import RandomModel, model_config
from pythia_bento.model.kernels.gpu import packing, tiles
from pythia_bento.model.kernels.gpu.kernels import TritonKernels
from pythia_bento.model.kernels.gpu.launch import AttentionScratch
from pythia_bento.model.kernels.gpu.packing import CHUNKS

DEVICE = torch.device("cuda")


class Step:
    """Buffers of one batch size and the launches of one step."""

    def __init__(self, model: Model, batch: int, context: int) -> None:
        self.m, self.batch = model, batch
        config, half = model.config, {"dtype": torch.float16, "device": DEVICE}
        hidden = config.hidden_size
        self.x = torch.empty(batch, hidden, device=DEVICE)
        self.h = torch.empty(2, batch, hidden, **half)
        self.qkv = torch.empty(batch, 3 * hidden, **half)
        self.up = torch.empty(batch, config.intermediate_size, **half)
        self.attended = torch.empty(batch, hidden, **half)
        self.parts = torch.empty(1 + CHUNKS, batch, hidden, device=DEVICE)
        self.logits = torch.empty(batch, config.vocab_size, device=DEVICE)
        self.ids = torch.randint(0, 50000, (batch,), dtype=torch.int32, device=DEVICE)
        self.lens = torch.full((batch,), context, dtype=torch.int32, device=DEVICE)
        self.scratch = AttentionScratch(config, batch, DEVICE)
        size = model.kernels.block_size
        width = -(-(context + 256) // size)
        table = torch.arange(batch * width, dtype=torch.int32, device=DEVICE)
        self.tables = table.view(batch, width)
        self.cache = model.kernels.allocate_cache(batch * width)
        self.cache.keys.normal_()
        self.cache.values.normal_()
        self.temperatures = torch.zeros(batch, device=DEVICE)
        self.seeds = torch.zeros(batch, dtype=torch.int64, device=DEVICE)
        self.keys = torch.empty(batch, model.launch.sample_parts, dtype=torch.int64, device=DEVICE)
        self.ring = torch.empty(batch, 64, dtype=torch.int32, device=DEVICE)

    def norm0(self) -> None:
        m = self.m
        m.launch.norm(m.layers[0].norms, self.x, self.h, table=m.table, token_ids=self.ids)

    def ins(self, i: int) -> None:
        self.m.launch.in_product(self.m.layers[i], self.h, self.qkv, self.up)

    def attention(self, i: int, **options: Any) -> None:
        cache = self.cache
        self.m.launch.decode_attention(
            *(self.qkv, cache.keys[i], cache.values[i], self.lens, self.tables, self.scratch),
            *(self.attended, self.m.layers[i].qk_scale),
            **options,
        )

    def out(self, i: int) -> None:
        self.m.launch.out_partial(self.m.layers[i], self.attended, self.up, self.parts)

    def norm(self, i: int) -> None:
        m = self.m
        is_last = i + 1 == len(m.layers)
        norms = m.head.norms if is_last else m.layers[i + 1].norms
        m.launch.norm(norms, self.x, self.h[: len(norms)], parts=self.parts, layer=m.layers[i])

    def head(self) -> None:
        self.m.launch.head_product(self.m.head, self.h[:1], self.logits)

    def choose(self) -> None:
        self.m.launch.choose(
            *(self.logits, self.temperatures, self.seeds, self.lens, self.keys, self.ids),
            50277,
            ring=self.ring,
        )

    def all(self) -> None:
        self.norm0()
        for i in range(len(self.m.layers)):
            self.ins(i)
            self.attention(i)
            self.out(i)
            self.norm(i)
        self.head()
        self.choose()


class Model:
    def __init__(self, name: str) -> None:
        self.config = model_config(name)
        self.kernels = TritonKernels(self.config, DEVICE)
        self.launch = self.kernels.launch
        self.side = torch.cuda.Stream()
        source = RandomModel(self.config, DEVICE)
        self.table = self.kernels.load_embedding(source.embedding())
        self.layers = [
            self.kernels.load_layer(source.layer(i)) for i in range(self.config.num_layers)
        ]
        self.head = self.kernels.load_head(source.head())


def graph_us(call: Callable[[], Any], repeats: int = 9) -> float:
    """Median microseconds of a replay of everything ``call`` launches."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000)
    return sorted(times)[len(times) // 2]


def measure(model: Model, batch: int, context: int) -> dict[str, Any]:
    step = Step(model, batch, context)
    layers = range(len(model.layers))

    def each(part: Callable[[int], Any]) -> Callable[[], None]:
        def run() -> None:
            for i in layers:
                part(i)

        return run

    found: dict[str, Any] = {"batch": batch, "step_us": graph_us(step.all)}
    step.lens.fill_(context)
    for name in ("ins", "attention", "out", "norm"):
        found[name] = graph_us(each(getattr(step, name))) / len(layers)
    found["head"] = graph_us(lambda: [step.head() for _ in range(4)]) / 4
    found["choose"] = graph_us(step.choose)
    step.lens.fill_(context)
    launch = model.launch
    launch.pdl, launch.overlap = True, {"launch_pdl": True}
    found["step_us_pdl"] = graph_us(step.all)
    step.lens.fill_(context)
    launch.pdl, launch.overlap = False, {}
    best = []
    heads = model.config.num_heads
    most = tiles.splits(batch * heads, step.scratch.max_tiles)
    for splits in sorted({1, most, max(1, most // 2), max(1, most // 4)}):
        for stages in (1, 2, 3):
            for warps in (2, 4, 8):
                try:
                    options = {"splits": splits, "stages": stages, "warps": warps}
                    us = graph_us(each(lambda i, o=options: step.attention(i, **o)))
                    best.append((round(us / len(layers), 2), splits, stages, warps))
                except Exception as error:
                    print("attention", options, str(error)[:80])
    found["attention_sweep"] = sorted(best)[:8]
    found["tokens_per_s"] = batch / found["step_us"] * 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="pythia-1b")
    parser.add_argument("--batches", default="1,8,32,128,256")
    parser.add_argument("--context", type=int, default=192)
    parser.add_argument("--out", default="step.json")
    parser.add_argument("--at-once", type=int, default=packing.AT_ONCE)
    parser.add_argument("--stages", type=int)
    args = parser.parse_args()
    packing.AT_ONCE = args.at_once
    if args.stages:
        for name in ("IN", "OUT_PARTIAL"):
            table = tuple(
                (most, tile._replace(stages=args.stages)) for most, tile in getattr(tiles, name)
            )
            setattr(tiles, name, table)
    model = Model(args.model)
    rows = []
    for batch in args.batches.split(","):
        row = measure(model, int(batch), args.context)
        rows.append(row)
        for key, value in row.items():
            print(key, round(value, 2) if isinstance(value, float) else value, flush=True)
    with open(args.out, "w") as file:
        json.dump(rows, file)


if __name__ == "__main__":
    sys.exit(main())
