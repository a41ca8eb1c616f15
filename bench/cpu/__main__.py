"""Our engine beside others on this machine's processor: ``python -m bench.cpu``, or ``make bench``.

All engines hold the same random weights, each in a process of its own with all cores, and are
measured in turn: A B C, A B C, ... Figures are medians of the rounds. Memory bandwidth is probed
right before every single one, as it moves from second to second on shared machines. A peer whose
process ends is a row that says how, and the others go on; the exit status is 1 where ours did.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from bench.common import machine
from bench.common.options import parser_of
from bench.common.report import OURS, Result, goals, table
from bench.cpu import parts
from bench.cpu.race import measure, tasks
from bench.peers import worker
from bench.peers.process import Engine, extra_versions
from pythia_bento import catalog

BATCHES = (4, 8, 16, 32)
ENGINES = (
    Engine(OURS, "ours", "cpu", linear_bytes=1, head_bytes=2, batches=(0,)),
    Engine("bitsandbytes, threshold 6", "hf", "bnb-6", linear_bytes=1, head_bytes=2),
    Engine("bitsandbytes, threshold 0", "hf", "bnb-0", linear_bytes=1, head_bytes=2),
    Engine("transformers bf16", "hf", "bf16", linear_bytes=2, head_bytes=2, batches=BATCHES),
    Engine("transformers fp32", "hf", "fp32", linear_bytes=4, head_bytes=4, batches=BATCHES),
    # Q8_0 stores 32 weights in 34 bytes; both quantise the head too, which changes the model more.
    Engine("llama.cpp Q8_0", "llama", "llama_cpp", 34 / 32, 34 / 32, is_extra=True),
    Engine("CTranslate2 int8", "ctranslate", "ctranslate2", 1, 1, is_extra=True),
)
MODELS = ("pythia-1b", "pythia-160m")
CACHE = Path(tempfile.gettempdir()) / "pythia-bento-bench"
RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    options = _options()
    torch.set_num_threads(worker.THREADS)
    engines = [e for e in ENGINES if not options.engines or e.variant in options.engines]
    results: list[Result] = []
    for model in options.models:
        chosen = [
            task
            for task in tasks(model, options.texts)
            if not options.tasks or task.key in options.tasks
        ]
        if options.parts:
            parts.show(model, chosen, CACHE)
            continue
        here = measure(model, engines, chosen, CACHE, options.rounds)
        results += here
        print(table(model, here), flush=True)
        print(goals(model, catalog.int8_bytes(catalog.config(model)), here), flush=True)
        if options.output:  # after each model: what is measured is kept
            _write(options.output, results)
    sys.exit(_report(results))


def _options() -> argparse.Namespace:
    parser = parser_of("bench.cpu", __doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="shapes; default %(default)s")
    parser.add_argument("--engines", nargs="+", help=", ".join(e.variant for e in ENGINES))
    parser.add_argument("--tasks", nargs="+", help=", ".join(t.key for t in tasks("")))
    parser.add_argument("--texts", type=int, help="scored in a round; default 64 of 1b, else 256")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", action="store_true", help="only where our own time goes")
    default = RESULTS / f"cpu-{machine.processor()}.json"
    parser.add_argument(
        "--output",
        type=Path,
        nargs="?",
        const=default,
        help="write the results there as JSON; by default bench/results/cpu-<processor>.json",
    )
    return parser.parse_args()


def _write(path: Path, results: list[Result]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_record(results), indent=1) + "\n")
    print(f"written to {path}")


def _record(results: list[Result]) -> dict[str, Any]:
    return {
        "machine": machine.describe(),
        "versions": machine.versions() | extra_versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench.cpu", *sys.argv[1:]]),
        "results": [asdict(result) for result in results],
    }


def _report(results: Sequence[Result]) -> int:
    """The exit status; who ended early is said."""
    ended = [result for result in results if result.ended]
    for result in ended:
        print(f"ended early: {result.engine}, {result.model}, {result.task}: {result.ended}")
    return int(any(result.engine == OURS for result in ended))


if __name__ == "__main__":
    main()
