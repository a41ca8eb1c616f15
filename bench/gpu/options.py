"""What options of sampling cost a decode step on one GPU: ``python -m bench.gpu.options``.

Times of ``prepare`` alone, in a captured graph, over normally distributed logits. ``--sweep`` tries
other sizes of its blocks. Whole steps with options are in ``bench.workloads``.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import torch

from bench.gpu import harness
from bench.gpu.graphs import graph_us
from pythia_bento import catalog
from pythia_bento.model.kernels.gpu import launch_options
from pythia_bento.model.kernels.gpu.row_options import row_options
from pythia_bento.model.sampling_row import Penalties, SamplingRow

SEEN = 200  # tokens that penalties look at
SPREADS = (2.0, 0.5)  # standard deviations of logits
KINDS: dict[str, dict[str, Any]] = {
    "top_p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "top_k 50": {"temperature": 0.8, "top_k": 50},
    "top_k 50, top_p 0.95": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "min_p 0.05": {"temperature": 0.8, "min_p": 0.05},
    "repetition_penalty 1.1": {"temperature": 0.0, "penalties": True},
}
SWEEP = [
    {"BLOCK": block, "WARPS": warps, "STAGES": stages}
    for block, warps, stages in itertools.product((2048, 4096, 8192), (16, 32), (1, 2))
    if block >= 32 * warps
]


def measure(kind: str, batch: int, spread: float) -> float:
    """Microseconds of all rows."""
    shape = catalog.config("pythia-1b")
    draw = np.random.default_rng(batch)
    fields = dict(KINDS[kind])
    if fields.pop("penalties", False):
        ids = draw.permutation(shape.vocab_size)[:SEEN].astype(np.int32)
        fields["penalties"] = Penalties(1.1, 0.0, 0.0, ids, np.ones(SEEN, np.int32))
    options = row_options([SamplingRow(SEEN, **fields)] * batch, harness.DEVICE)
    assert options is not None
    launch = launch_options.OptionsLauncher(shape, harness.DEVICE)
    room = launch.room(options)
    logits = spread * torch.randn(batch, shape.vocab_size, device=harness.DEVICE)
    positions = torch.full((batch,), SEEN, dtype=torch.int32, device=harness.DEVICE)
    heat = torch.full((batch,), fields["temperature"], device=harness.DEVICE)
    count = shape.vocab_size - 27
    return graph_us(lambda: launch.prepare(logits, options, room, positions, heat, count))


def main() -> None:
    """Measure, print, write."""
    parser = harness.arguments("h200-options.json", "1,32,128,256")
    parser.add_argument("--sweep", action="store_true")
    args = parser.parse_args()
    batches, rows = [int(batch) for batch in args.batches.split(",")], []
    sizes = SWEEP if args.sweep else [{}]
    for size, kind, batch, spread in itertools.product(sizes, KINDS, batches, SPREADS):
        for name, value in size.items():
            setattr(launch_options, name, value)
        us = round(measure(kind, batch, spread), 1)
        rows.append({"options": kind, "batch": batch, "spread": spread, "us": us, **size})
        print(rows[-1], flush=True)
    harness.write(args.out, rows)


if __name__ == "__main__":
    sys.exit(main())
