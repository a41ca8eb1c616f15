"""One captured decode step of the whole model on one GPU: time, and where it goes.

``python -m bench.gpu.step [--model pythia-1b] [--batches 1,8,...] [--context 192] [--sweep]``
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch

from bench.common.random_model import RandomModel
from bench.gpu.graphs import graph_us, layer_us
from pythia_bento import catalog
from pythia_bento.executor.graphs.decode import RING
from pythia_bento.executor.graphs.options import OptionBuffers
from pythia_bento.model.batch import MOST_TOP, DecodeRows
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.gpu import packing, tiles
from pythia_bento.model.kernels.gpu.kernels import TritonKernels
from pythia_bento.model.kernels.gpu.packing import TritonLayer

DEVICE = torch.device("cuda")
NUM_TOKENS = 50277


class Step:
    """The decode steps of one batch size, whole and in parts."""

    def __init__(self, model: GPTNeoX, batch: int, context: int) -> None:
        kernels = model.kernels
        assert isinstance(kernels, TritonKernels)
        self._layers, self._head = model.weights.layers, model.weights.head
        self._launch, self._batch, self._context = kernels.launch, batch, context
        width = -(-(context + 256) // kernels.block_size)
        widest = -(-kernels.config.max_positions // kernels.block_size)  # of the persistent kernel
        cache = kernels.allocate_cache(batch * width)
        cache.keys.normal_()
        cache.values.normal_()
        tables = torch.zeros(batch, widest, dtype=torch.int32, device=DEVICE)
        blocks = torch.arange(batch * width, dtype=torch.int32, device=DEVICE)
        tables[:, :width] = blocks.view(batch, width)
        asked = OptionBuffers(kernels, batch)
        asked.clear()
        self.rows = DecodeRows(
            token_ids=torch.randint(0, 50000, (batch,), dtype=torch.int32, device=DEVICE),
            context_lens=torch.full((batch,), context, dtype=torch.int32, device=DEVICE),
            block_tables=tables,
            temperatures=torch.zeros(batch, device=DEVICE),
            seeds=torch.zeros(batch, dtype=torch.int64, device=DEVICE),
            ring=torch.empty(batch, RING, dtype=torch.int32, device=DEVICE),
            options=asked.options,
            limits=asked.limits,
            found=torch.empty(1 + 2 * MOST_TOP, batch, RING, dtype=torch.int32, device=DEVICE),
        )
        self.steps = kernels.decode_steps(model.weights, cache, self.rows, NUM_TOKENS)
        self.activations = self.steps.workspace.first(batch)

    def layer(self, index: int) -> TritonLayer:
        layer: TritonLayer = self._layers[index]
        return layer

    def ins(self, index: int) -> None:
        a = self.activations
        self._launch.in_product(self.layer(index), a.h, a.qkv, a.up)

    def attention(self, index: int, **options: Any) -> None:
        self.steps.attend(index, self.layer(index), self.activations, **options)

    def out(self, index: int) -> None:
        a = self.activations
        self._launch.out_partial(self.layer(index), a.attended, a.up, a.parts)

    def norm(self, index: int) -> None:
        a = self.activations
        is_last = index + 1 == len(self._layers)
        norms = self._head.norms if is_last else self.layer(index + 1).norms
        self._launch.norm(norms, a.x, a.h, parts=a.parts, layer=self.layer(index))

    def head(self) -> None:
        self.steps.launch_head(self._batch)

    def choose(self) -> None:
        self.steps.launch_choice(self._batch)

    def whole(self) -> None:
        """The step with one persistent kernel for all layers; only of sizes that it takes."""
        assert self.steps.persistent is not None
        self.steps.launch_whole(self.steps.persistent, self._batch)
        self.head()
        self.choose()

    @property
    def is_persistent(self) -> bool:
        return self.steps.persistent is not None and self._batch in self.steps.persistent.batches

    def all(self) -> None:
        """The whole step by four kernels a layer, whatever the batch."""
        self.steps.launch_by_layer(self._batch)
        self.head()
        self.choose()

    def rewind(self) -> None:
        """Steps moved the rows on; back to the context that is asked for."""
        self.rows.context_lens.fill_(self._context)


def measure(model: GPTNeoX, batch: int, context: int, sweeps: bool) -> dict[str, Any]:
    step, count = Step(model, batch, context), len(model.weights.layers)
    found: dict[str, Any] = {"batch": batch, "step_us": graph_us(step.all)}
    step.rewind()
    if step.is_persistent:
        found["persistent_us"] = graph_us(step.whole)
        step.rewind()
    for name in ("ins", "attention", "out", "norm"):
        found[name] = layer_us(getattr(step, name), count)
    found["head"] = graph_us(lambda: [step.head() for _ in range(4)]) / 4
    found["choose"] = graph_us(step.choose)
    step.rewind()
    found["tokens_per_s"] = batch / min(found["step_us"], found.get("persistent_us", 1e9)) * 1e6
    if sweeps:
        found["attention_sweep"] = sweep_attention(step, model, batch)[:8]
    return found


def sweep_attention(step: Step, model: GPTNeoX, batch: int) -> list[tuple[float, int, int, int]]:
    """(microseconds, splits, stages, warps), the fastest first."""
    found = []
    config, scratch = model.config, step.steps.attend.scratch
    most = tiles.splits(batch * config.num_heads, scratch.max_tiles, config.head_dim)
    for splits in sorted({1, most, max(1, most // 2), max(1, most // 4)}):
        for stages in (2, 3, 5):
            for warps in (2, 4, 8):
                options = {"splits": splits, "stages": stages, "warps": warps}
                try:
                    us = layer_us(
                        lambda i, o=options: step.attention(i, **o), len(model.weights.layers)
                    )
                except Exception as error:
                    print("attention", options, str(error)[:80])
                    continue
                found.append((round(us, 2), splits, stages, warps))
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="pythia-1b")
    parser.add_argument("--batches", default="1,8,32,128,256")
    parser.add_argument("--context", type=int, default=192)
    parser.add_argument("--out", default="step.json")
    parser.add_argument("--at-once", type=int, default=packing.AT_ONCE)
    parser.add_argument("--stages", type=int)
    parser.add_argument("--sweep", action="store_true", help="attention by splits, stages, warps")
    args = parser.parse_args()
    packing.AT_ONCE = args.at_once
    if args.stages:
        for name in ("IN", "OUT_PARTIAL"):
            table = tuple(
                (most, tile._replace(stages=args.stages)) for most, tile in getattr(tiles, name)
            )
            setattr(tiles, name, table)
    config = catalog.config(args.model)
    model = GPTNeoX(RandomModel(config, DEVICE), TritonKernels(config, DEVICE))
    rows = []
    for batch in args.batches.split(","):
        row = measure(model, int(batch), args.context, args.sweep)
        rows.append(row)
        for key, value in row.items():
            print(key, round(value, 2) if isinstance(value, float) else value, flush=True)
    with open(args.out, "w") as file:
        json.dump(rows, file)


if __name__ == "__main__":
    sys.exit(main())
