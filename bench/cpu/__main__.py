"""Our engine beside others on this machine's processor: ``python -m bench.cpu``, or ``make bench``.

All engines hold the same random weights, each in a process of its own with all cores, and are
measured in turn: A B C, A B C, ... Figures are medians of the rounds. Memory bandwidth is probed
right before every single one, as it moves from second to second on shared machines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from bench.common import machine, shapes
from bench.common.report import DECODE_1, DECODE_8, LOAD, OURS, PREFILL, Result, goals, table
from bench.peers import worker
from bench.peers.process import Engine, Process, extra_versions
from pythia_bento import catalog

ENGINES = (
    Engine(OURS, "ours", "cpu", linear_bytes=1, head_bytes=2),
    Engine("bitsandbytes, threshold 6", "hf", "bnb-6", linear_bytes=1, head_bytes=2),
    Engine("bitsandbytes, threshold 0", "hf", "bnb-0", linear_bytes=1, head_bytes=2),
    Engine("transformers bf16", "hf", "bf16", linear_bytes=2, head_bytes=2),
    # Q8_0 stores 32 weights in 34 bytes; both quantise the head too, which changes the model more.
    Engine("llama.cpp Q8_0", "llama", "llama_cpp", 34 / 32, 34 / 32, is_extra=True),
    Engine("CTranslate2 int8", "ctranslate", "ctranslate2", 1, 1, is_extra=True),
)
MODELS = ("pythia-1b", "pythia-160m")
CACHE = Path(tempfile.gettempdir()) / "pythia-bento-bench"


@dataclass(frozen=True, slots=True)
class Task:
    """What is timed: decode steps of a batch, or one prefill where ``new`` is 0."""

    name: str
    batch: int
    prompt: int
    new: int

    @property
    def tokens(self) -> int:
        """Tokens computed in the measured time."""
        return self.batch * self.new or self.prompt


TASKS = (
    Task(DECODE_1, batch=1, prompt=64, new=32),
    Task(DECODE_8, batch=8, prompt=64, new=32),
    Task(PREFILL, batch=1, prompt=128, new=0),
)


def main() -> None:
    options = _options()
    torch.set_num_threads(worker.THREADS)
    engines = [e for e in ENGINES if not options.engines or e.variant in options.engines]
    results: list[Result] = []
    for model in options.models:
        results += _measure_model(model, engines, options.rounds)
        here = [result for result in results if result.model == model]
        print(table(model, here), flush=True)
        print(goals(model, catalog.int8_bytes(catalog.config(model)), here), flush=True)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(_record(results), indent=1) + "\n")
        print(f"written to {options.output}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.cpu", description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="shapes; default %(default)s")
    parser.add_argument("--engines", nargs="+", help=", ".join(e.variant for e in ENGINES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the results there as JSON")
    return parser.parse_args()


def _measure_model(model: str, engines: Sequence[Engine], rounds: int) -> list[Result]:
    checkpoint = CACHE / model
    _say(f"{model}: random checkpoint in {checkpoint}")
    shapes.write_checkpoint(model, checkpoint)
    results, processes = [], []
    with contextlib.ExitStack() as stack:
        for engine in engines:
            if not engine.is_installed:
                results.append(Result(model, engine.name, LOAD))
                continue
            _say(f"{engine.name}: loading")
            log = checkpoint.with_name(f"{model}-{engine.variant}.log")
            process = stack.enter_context(Process(engine, checkpoint, log))
            results.append(Result(model, engine.name, LOAD, peak_mb=round(process.peak_mb)))
            processes.append(process)
        for task in TASKS:
            results += _measure_task(model, task, processes, rounds)
    return results


def _measure_task(
    model: str, task: Task, processes: Sequence[Process], rounds: int
) -> list[Result]:
    probe = machine.BandwidthProbe()
    samples: dict[str, list[tuple[float, float]]] = {p.engine.name: [] for p in processes}
    for seed in range(rounds + 1):
        _say(f"{model}: {task.name}, round {seed} of {rounds}")
        for process in processes:
            bandwidth = probe()
            seconds = process.seconds(batch=task.batch, prompt=task.prompt, new=task.new, seed=seed)
            if seed > 0:  # the first round warms up
                samples[process.engine.name].append((seconds, bandwidth))
    return [_result(model, task, p.engine, samples[p.engine.name]) for p in processes]


def _result(model: str, task: Task, engine: Engine, samples: list[tuple[float, float]]) -> Result:
    seconds = statistics.median(s for s, _ in samples)
    bandwidth = statistics.median(b for _, b in samples)
    config = catalog.config(model)
    step = seconds / (task.new or 1)
    weights = catalog.linear_weights(config) * engine.linear_bytes
    weights += shapes.head_weights(config) * engine.head_bytes
    return Result(
        model,
        engine.name,
        task.name,
        tokens_per_s=round(task.tokens / seconds, 2),
        ms_a_step=round(step * 1e3, 3),
        probe_gb_s=round(bandwidth, 1),
        percent_of_limit=round(weights / (bandwidth * 1e9) / step * 100, 1) if task.new else None,
        rounds=tuple(round(task.tokens / s, 2) for s, _ in samples),
        probes=tuple(round(b, 1) for _, b in samples),
    )


def _record(results: list[Result]) -> dict[str, Any]:
    return {
        "machine": machine.describe(),
        "versions": machine.versions() | extra_versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench.cpu", *sys.argv[1:]]),
        "results": [asdict(result) for result in results],
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
