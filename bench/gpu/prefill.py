"""Prefill throughput of the engine on one GPU: ``python -m bench.gpu.prefill [--models ...]``.

``batch`` prompts of ``--prompt`` tokens in one step, first tokens chosen and read. Long passes are
bound by arithmetic, so the clocks of the multiprocessors are in the results.
"""

from __future__ import annotations

import sys

import torch

from bench.common import clocks
from bench.gpu import harness
from pythia_bento import catalog
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.params import Request

ROUNDS = 15


def main() -> None:
    """Measure, print, write."""
    args = harness.arguments("h200-prefill.json", "1,8,128").parse_args()
    batches = [int(batch) for batch in args.batches.split(",")]
    rows = []
    for name in args.models.split(","):
        config = catalog.config(name)
        engine = harness.load_engine(
            name, max(batches), args.prompt + 1, max(batches) * args.prompt
        )
        for batch in batches:
            asked = [
                harness.requests(batch, args.prompt, 1, 1000 * batch + seed)
                for seed in range(ROUNDS + 1)
            ]
            _seconds(engine, asked[0])  # warms up
            times = [_seconds(engine, requests) for requests in asked[1:]]
            with clocks.watched() as found:  # apart: asking for them takes the host's time
                for again in range(1, ROUNDS):
                    _seconds(engine, harness.requests(batch, args.prompt, 1, 1000 * batch - again))
            seconds = sorted(times)[ROUNDS // 2]
            tokens = batch * args.prompt
            hidden, inner = config.hidden_size, config.intermediate_size
            flops = 2.0 * tokens * config.num_layers * hidden * (4 * hidden + 2 * inner)
            rows.append(
                {
                    "model": name,
                    "backend": "pythia-bento w8a16",
                    "batch": batch,
                    "prompt": args.prompt,
                    "ms": round(seconds * 1e3, 3),
                    "tokens_per_s": round(tokens / seconds, 1),
                    "tflops": round(flops / seconds / 1e12, 1),
                    **found.summary(),
                }
            )
            print(rows[-1], flush=True)
        engine.close()
    harness.write(args.out, rows)


def _seconds(engine: Engine, asked: list[Request]) -> float:
    start = harness.now()
    for request in asked:
        engine.add_request(request)
    while engine.has_work:
        engine.step()
    return harness.now() - start


if __name__ == "__main__":
    torch.set_num_threads(4)
    sys.exit(main())
