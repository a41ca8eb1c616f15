"""A peer for ``test_race``: each variant is one way to go on or to end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from bench.peers import worker


class Peer:
    """Answers at once, or ends."""

    def __init__(self, directory: Path, variant: str) -> None:
        if variant == "no-load":
            sys.exit("this model is not for me")
        self._variant = variant

    def decode(self, prompts: list[list[int]], new: int) -> float:
        if self._variant == "crash":
            os.kill(os.getpid(), signal.SIGILL)
        return 0.5

    def prefill(self, prompt: list[int]) -> float:
        return 0.25

    def score(self, texts: list[list[int]], batch: int) -> float:
        return len(texts) * (1 + abs(batch - 8))  # 8 at a time is best


def prepare(directory: Path) -> None:
    if sys.argv[3] == "no-prepare":
        sys.exit(3)


if __name__ == "__main__":
    worker.main(Peer, prepare)
