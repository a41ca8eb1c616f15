"""pythia-bento, through its engine."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from bench.common.alone import load_alone
from bench.peers import worker
from pythia_bento.engine.params import Request, SamplingParams, score_request
from pythia_bento.settings import load_settings


class Ours:
    """One step at a time, as the service drives it."""

    def __init__(self, directory: Path, variant: str) -> None:
        settings = load_settings({"model": str(directory), "device": "cpu", "backend": "cpu"})
        self._engine, _ = load_alone(settings)
        self._ids = itertools.count()

    def decode(self, prompts: list[list[int]], new: int) -> float:
        self._add(prompts, new + 1)
        while self._engine.stats().generation_tokens < self._wanted:
            self._engine.step()
        start = time.perf_counter()
        for _ in range(new):
            self._engine.step()
        elapsed = time.perf_counter() - start
        assert not self._engine.has_work
        return elapsed

    def prefill(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        self._add([prompt], 1)
        while self._engine.has_work:
            self._engine.step()
        return time.perf_counter() - start

    def score(self, texts: list[list[int]], batch: int) -> float:
        """The engine forms its batches itself."""
        requests = [score_request(tuple(text)) for text in texts]
        start = time.perf_counter()
        answers = self._engine.generate(requests)
        elapsed = time.perf_counter() - start
        assert all(answer.prompt_logprobs is not None for [answer] in answers)
        return elapsed

    def _add(self, prompts: list[list[int]], new: int) -> None:
        """Queue the prompts; all have a token when ``_wanted`` tokens were generated."""
        self._wanted = self._engine.stats().generation_tokens + len(prompts)
        params = SamplingParams(max_tokens=new, temperature=0, ignore_eos=True)
        for prompt in prompts:
            self._engine.add_request(Request(str(next(self._ids)), tuple(prompt), params))


if __name__ == "__main__":
    worker.main(Ours)
