"""Decode throughput and time to first token of the engine on one GPU, peers beside it.

``python -m bench.gpu.decode [--models pythia-1b,...] [--batches 1,8,32,128,256] [--peers]``: random
weights, random prompts, greedy. tokens/s is of all sequences together, from the moment that each
has its first token.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from bench.gpu import harness
from pythia_bento import catalog
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import Executor
from pythia_bento.executor import make_executor

ROUNDS = 3


def decode(
    engine: Engine, batch: int, prompt: int, new: int, seed: int, **options: Any
) -> tuple[float, float]:
    """(seconds to all first tokens, seconds for the ``new`` - 1 others).

    All prompts are one pass. Further steps are under way when its tokens are read, so the device
    is not waited for in between.
    """
    asked = harness.requests(batch, prompt, new, seed, **options)
    start = harness.now()
    for request in asked:
        engine.add_request(request)
    begun: set[str] = set()
    count = 0
    while len(begun) < batch:
        outputs = engine.step()
        begun |= {output.request_id for output in outputs}
        count += sum(len(output.token_ids) for output in outputs)
    middle = time.perf_counter()
    while engine.has_work:
        count += sum(len(output.token_ids) for output in engine.step())
    assert count == batch * new
    return middle - start, harness.now() - middle


def measure(name: str, args: Any, limit: float) -> list[dict[str, Any]]:
    """Rows of one model."""
    batches = [int(batch) for batch in args.batches.split(",")]
    config = catalog.config(name)
    context = args.prompt + args.new
    capture = 0.0

    def make(*known: Any) -> Executor:
        nonlocal capture
        executor: Any = make_executor(*known)
        capture = executor.decode.capture_seconds
        return executor

    most = max(512, max(batches) * args.prompt)
    engine = harness.load_engine(name, max(batches), context, most, make=make)
    print(f"{name}: captured in {capture:.1f} s", flush=True)
    rows = []
    for batch in batches:
        decode(engine, batch, args.prompt, args.new, 0)
        runs = [decode(engine, batch, args.prompt, args.new, 1 + i) for i in range(ROUNDS)]
        first = sorted(run[0] for run in runs)[ROUNDS // 2]
        seconds = sorted(run[1] for run in runs)[ROUNDS // 2]
        rows.append(row(name, "pythia-bento w8a16", batch, seconds, args, limit, config, 1))
        rows[-1] |= {"first_token_ms": round(first * 1e3, 3), "capture_s": round(capture, 1)}
        show(rows[-1])
    engine.close()
    return rows


def row(
    name: str,
    backend: str,
    batch: int,
    seconds: float,
    args: Any,
    limit: float,
    config: Any,
    weight_bytes: int,
) -> dict[str, Any]:
    """One result: rates from the seconds of ``new`` - 1 steps."""
    step = seconds / (args.new - 1)
    size = harness.step_bytes(config, batch, args.prompt + args.new / 2, weight_bytes)
    return {
        "model": name,
        "backend": backend,
        "batch": batch,
        "tokens_per_s": round(batch / step, 1),
        "step_ms": round(step * 1e3, 4),
        "gb_per_s": round(size / step / 1e9, 1),
        "share_of_limit": round(size / step / 1e9 / limit, 3),
    }


def show(row: dict[str, Any]) -> None:
    first = f"  first token {row['first_token_ms']:.2f} ms" if "first_token_ms" in row else ""
    print(
        f"{row['model']:12} {row['backend']:28} batch {row['batch']:4} "
        f"{row['tokens_per_s']:10.1f} tokens/s {row['gb_per_s']:8.1f} GB/s "
        f"{100 * row['share_of_limit']:5.1f} % of the limit{first}",
        flush=True,
    )


def main() -> None:
    """Measure, print, write."""
    parser = harness.arguments("h200-decode.json", "1,8,32,128,256")
    parser.add_argument("--peers", action="store_true")
    args = parser.parse_args()
    limit = harness.copy_gb_per_s()
    print(f"{torch.cuda.get_device_name()}: a copy moves {limit:.0f} GB/s")
    rows: list[dict[str, Any]] = []
    for name in args.models.split(","):
        rows += measure(name, args, limit)
        harness.write(
            args.out, rows, copy_gb_per_s=round(limit, 1), prompt=args.prompt, new=args.new
        )
        if args.peers:
            from bench.gpu.peers import peers

            for backend, batch, seconds, size in peers(name, args):
                rows.append(
                    row(name, backend, batch, seconds, args, limit, catalog.config(name), size)
                )
                show(rows[-1])
                harness.write(
                    args.out, rows, copy_gb_per_s=round(limit, 1), prompt=args.prompt, new=args.new
                )


if __name__ == "__main__":
    sys.exit(main())
