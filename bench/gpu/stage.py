"""A runner and some residents that take turns on it: what ``bench.gpu.checkpoints`` measures on."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from bench.common.random_model import RandomModel
from bench.common.shapes import tokenizer
from bench.gpu import harness
from bench.gpu.residents import HostLoader, group_of, tag
from pythia_bento import catalog
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.group import EngineGroup
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.host_slabs import HostSlabs

CACHE_BYTES = 8 * 10**9
TURN_SECONDS = 0.05
TINY = ModelConfig(1, 64, 4, 256, 320, 512, 4)
TINY_TOKENS = 300

Asked = dict[str, list[Request]]
Answers = dict[str, dict[str, SequenceOutput]]  # by checkpoint and request


class Stage:
    """Some residents of one runner, and what was asked of them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, torch.device(args.device)
        self.is_tiny = args.device == "cpu"
        self.config = TINY if self.is_tiny else catalog.config(args.model)
        self.keys = [f"seed {seed}" for seed in range(args.entries)]
        self.known = Tokenizer(tokenizer(TINY_TOKENS) if self.is_tiny else tokenizer())
        self.kernels = create("cpu" if self.is_tiny else "triton", self.config, self.device)
        models = {key: self.model(key) for key in self.keys}
        for key, model in models.items():
            model.weights = self.kernels.contiguous(model.weights, tag(key))
        self.weights = {key: model.weights for key, model in models.items()}
        blocks = 64 if self.is_tiny else CACHE_BYTES // self.kernels.kv_bytes_per_block()
        self.sizes = EngineConfig(blocks, *((4, 64) if self.is_tiny else (64, 2048)))
        self.runner: Any = self.runner_of(models[self.keys[0]], self.sizes)
        self.asked: list[Asked] = []
        self.answers: list[Answers] = []
        self.rates: dict[str, float] = {}

    def model(self, key: str) -> GPTNeoX:
        """Its weights as a server of it alone has them."""
        with torch.inference_mode():
            return GPTNeoX(
                RandomModel(self.config, self.device, self.keys.index(key)), self.kernels
            )

    def runner_of(self, model: GPTNeoX, sizes: EngineConfig) -> Any:
        return make_executor(model, sizes, self.known.num_tokens)

    def requests(self, count: int, prompt: int, new: int, seed: int) -> list[Request]:
        """Greedy ones, with random prompts of tokens that there are."""
        asked = harness.requests(count, prompt, new, seed)
        if not self.is_tiny:
            return asked
        return [replace(a, prompt=tuple(token % TINY_TOKENS for token in a.prompt)) for a in asked]

    def slab_bytes(self) -> int:
        """Of each; as good as none where nothing is captured."""
        slab = self.weights[self.keys[0]].slab
        return len(slab.memory) if slab else 1

    def group(self, keys: list[str], capacity: int, host: HostSlabs | None = None) -> EngineGroup:
        """Of residents, or, where they have fewer places, of copies that come and go."""

        def entry(key: str) -> Callable[[], PackedWeights]:
            if host is None:
                return lambda: self.weights[key]
            return lambda: self.kernels.contiguous(self.weights[key], tag(key))

        entries, first = {key: entry(key) for key in keys}, self.weights[keys[0]]
        self.loader = HostLoader(self.known, host)
        sizes = {"capacity": capacity, "turn_seconds": TURN_SECONDS}
        return group_of(self.runner, first, entries, self.loader, self.known, **sizes)  # type: ignore[arg-type]

    def compare(self, asked: Asked, answers: Answers) -> None:
        """To be compared with those of each alone."""
        self.asked.append(asked)
        self.answers.append(answers)


class Marks:
    """Pairs of moments in the order of the device's work."""

    def __init__(self, *, is_cuda: bool) -> None:
        self._is_cuda = is_cuda
        self._found: list[Any] = []

    def note(self) -> None:
        mark: Any = time.perf_counter()
        if self._is_cuda:
            mark = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            mark.record()
        self._found.append(mark)

    def milliseconds(self) -> list[float]:
        """Of each pair."""
        harness.now()
        pairs = zip(self._found[::2], self._found[1::2], strict=True)
        if self._is_cuda:
            return [begin.elapsed_time(end) for begin, end in pairs]
        return [(end - begin) * 1e3 for begin, end in pairs]
