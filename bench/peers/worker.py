"""The process around one engine: JSON lines in, seconds out. Standard library only.

``python -m bench.peers.<engine> prepare|serve <checkpoint directory> <variant>``
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

NUM_TOKENS = 50_000  # prompts are drawn from ids below
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Peer(Protocol):
    """An engine with its model loaded. All generation is greedy and ignores end of text."""

    def decode(self, prompts: list[list[int]], new: int) -> float:
        """Seconds for ``new`` steps of the batch, after the prompts and one token of each."""
        ...

    def prefill(self, prompt: list[int]) -> float:
        """Seconds from a prompt to its first token."""
        ...


class Scorer(Peer, Protocol):
    """One that gives the log-probability of each token of a text too."""

    def score(self, texts: list[list[int]], batch: int) -> float:
        """Seconds for all texts, ``batch`` of them at a time."""
        ...


def main(load: Callable[[Path, str], Peer], prepare: Callable[[Path], None] | None = None) -> None:
    """Convert the checkpoint once, or load it and answer requests until standard input ends."""
    command, directory, variant = sys.argv[1:]
    if command == "prepare":
        if prepare is not None:
            prepare(Path(directory))
        return
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print what they like
    peer = load(Path(directory), variant)
    _answer(answers, peak_mb=_peak_rss_mb())
    for line in sys.stdin:
        _answer(answers, seconds=measure(peer, json.loads(line)))


def measure(peer: Peer, request: dict[str, int]) -> float:
    """Prompts are new each time, so that no cache of an earlier one helps."""
    draw = random.Random(request["seed"])
    prompts = [
        [draw.randrange(NUM_TOKENS) for _ in range(request["prompt"])]
        for _ in range(request["texts"] or request["batch"])
    ]
    if request["texts"]:
        scorer: Any = peer
        return float(scorer.score(prompts, request["batch"]))
    if request["new"]:
        return peer.decode(prompts, request["new"])
    return peer.prefill(prompts[0])


def _peak_rss_mb() -> float:
    """Most memory this process has held, MB (10^6 bytes), mapped file pages included."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def _answer(stream: Any, **fields: float) -> None:
    stream.write(json.dumps(fields) + "\n")
    stream.flush()
