"""Where the time of our own passes goes: ``python -m bench.cpu --parts``.

Each entry point of the kernels is timed where Python calls it. What is left is the engine's own:
the scheduler, tokens accepted, tensors made. GB/s are the weights that a part reads, once a call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.common import shapes
from bench.cpu.race import Task, say
from bench.peers import worker
from pythia_bento import catalog
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cpu import build
from pythia_bento.model.kernels.cpu.library import load

PARTS = {
    "pythia_project_in": "norms, qkv, up, GELU",
    "pythia_attend": "attention",
    "pythia_project_out": "dense, down",
    "pythia_logits": "head",
    "pythia_scores": "head and scores",
    "pythia_sample": "choice",
    "pythia_logprobs": "log-probabilities",
}


class Parts:
    """Seconds and calls of each entry point, from ``clear`` on."""

    def __init__(self, library: Any) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        for name in PARTS:
            setattr(library, name, self._timed(name, getattr(library, name)))
        self.clear()

    def clear(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.calls = dict.fromkeys(PARTS, 0)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            begun = time.perf_counter()
            answer = function(*arguments)
            self.seconds[name] += time.perf_counter() - begun
            self.calls[name] += 1
            return answer

        return timed


def show(model: str, chosen: Sequence[Task], cache: Path) -> None:
    """A table for each task, of one run after one to warm up."""
    from bench.peers.ours import Ours  # only now: it loads the whole engine

    checkpoint = cache / model
    shapes.write_checkpoint(model, checkpoint)
    say(f"{model}: loading")
    parts, peer = Parts(load(build.supported()[0])), Ours(checkpoint, "cpu")
    for task in chosen:
        for seed in (0, 1):
            parts.clear()
            seconds = worker.measure(peer, request(task, seed))
        print(table(model, task, parts, seconds), flush=True)


def request(task: Task, seed: int) -> dict[str, int]:
    """As ``race.Runner`` asks the workers."""
    return {
        "batch": task.batch,
        "prompt": task.prompt,
        "new": task.new,
        "texts": task.texts,
        "seed": seed,
    }


def table(model: str, task: Task, parts: Parts, seconds: float) -> str:
    """Milliseconds, share of the measured time, and GB/s of weights.

    What came before the measured time, a decode's prompts, is in the parts and not in the share.
    """
    config = catalog.config(model)
    lines = [f"\n{model}, {task.name}: {seconds * 1e3:.1f} ms measured"]
    total = sum(parts.seconds.values())
    for name, label in PARTS.items():
        if not (calls := parts.calls[name]):
            continue
        own = parts.seconds[name]
        rate = weights_of(name, config) * calls / own / 1e9
        read = f"{rate:6.1f} GB/s" if rate else ""
        lines.append(
            f"  {label:22} {own * 1e3:9.1f} ms {own / total:5.0%} {calls:6} calls "
            f"{own / calls * 1e6:9.1f} us each {read}"
        )
    return "\n".join(lines)


def weights_of(name: str, config: ModelConfig) -> int:
    """Bytes of weights that one call reads once."""
    hidden, wide = config.hidden_size, config.intermediate_size
    return {
        "pythia_project_in": hidden * (3 * hidden + wide),
        "pythia_project_out": hidden * (hidden + wide),
        "pythia_logits": 2 * shapes.head_weights(config),
        "pythia_scores": 2 * shapes.head_weights(config),
    }.get(name, 0)
