"""Engines over small random models on real kernels, and requests of every kind."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.logprobs import TokenLogprob
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.executor import make_executor
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights, Norm, Part, parts
from tests.tokenizer_parts import small_tokenizer

TOKENIZER = small_tokenizer()
CONTEXT = 256


class RandomWeights:
    """Weights of a small model: every token has its own opinion about the next one."""

    def __init__(self, config: ModelConfig, infinite_token: int | None = None) -> None:
        self.config = config
        self._random = torch.Generator().manual_seed(0)
        self._infinite_token = infinite_token

    def order(self) -> list[Part]:
        return parts(self.config)

    def embedding(self) -> Tensor:
        weight = self._normal(self.config.vocab_size, self.config.hidden_size).half()
        if self._infinite_token is not None:
            weight[self._infinite_token, 3] = torch.inf
        return weight

    def layer(self, index: int) -> LayerWeights:
        hidden, wide = self.config.hidden_size, self.config.intermediate_size
        return LayerWeights(
            self._norm(),
            self._norm(),
            self._linear(3 * hidden, hidden),
            self._linear(hidden, hidden),
            self._linear(wide, hidden),
            self._linear(hidden, wide),
        )

    def head(self) -> HeadWeights:
        weight = 0.2 * self._normal(self.config.vocab_size, self.config.hidden_size)
        return HeadWeights(self._norm(), weight.half())

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._random)

    def _norm(self) -> Norm:
        size = self.config.hidden_size
        return Norm(1 + 0.1 * self._normal(size), 0.1 * self._normal(size))

    def _linear(self, out: int, depth: int) -> Int8Linear:
        weight = torch.randint(-127, 128, (out, depth), generator=self._random).to(torch.int8)
        scb = 0.02 + 0.1 * torch.rand(out, generator=self._random)
        return Int8Linear(weight, scb, 0.1 * self._normal(out).half())


def random_model(
    backend: str, head_dim: int = 32, heads: int = 4, infinite_token: int | None = None
) -> GPTNeoX:
    """Two layers; more vocabulary rows than the tokenizer has tokens, as in Pythia."""
    hidden = head_dim * heads
    rows = TOKENIZER.num_tokens + 20
    config = ModelConfig(2, hidden, heads, 4 * hidden, rows, CONTEXT, head_dim // 4)
    kernels = create(backend, config, torch.device("cpu"), "w8a16")
    return GPTNeoX(RandomWeights(config, infinite_token), kernels)


def engine_for(model: GPTNeoX, num_blocks: int = 128, **sizes: int) -> Engine:
    """An engine with an empty cache of its own."""
    config = EngineConfig(num_blocks, **sizes)
    return Engine(make_executor(model, config, TOKENIZER.num_tokens), TOKENIZER)


def alone(model: GPTNeoX, request: Request) -> list[SequenceOutput]:
    """What a request gets from an engine that has never seen another, in one piece."""
    return engine_for(model, max_tokens_per_step=CONTEXT).generate([request])[0]


def mixed_requests(count: int, seed: int = 0) -> list[Request]:
    """All lengths and parameters; half of the prompts begin alike."""
    rng = random.Random(seed)
    common = tuple(rng.randrange(2, TOKENIZER.num_tokens) for _ in range(100))
    return [_mixed_request(str(index), rng, common) for index in range(count)]


def _mixed_request(id: str, rng: random.Random, common: tuple[int, ...]) -> Request:
    own = tuple(rng.randrange(2, TOKENIZER.num_tokens) for _ in range(rng.randrange(1, 60)))
    prompt = common[: rng.randrange(100)] * rng.randrange(2) + own
    max_tokens = rng.choice([0, 1, 7, 20, 30])
    params = SamplingParams(
        max_tokens=max_tokens,
        min_tokens=rng.randrange(max_tokens + 1),
        temperature=rng.choice([0.0, 0.7, 1.0, 3.0]),
        top_k=rng.choice([0, 0, 5]),
        top_p=rng.choice([1.0, 0.9]),
        min_p=rng.choice([0.0, 0.0, 0.05]),
        presence_penalty=rng.choice([0.0, 0.0, 0.0, 1.5]),
        frequency_penalty=rng.choice([0.0, 0.0, 0.0, 0.7, -0.5]),
        repetition_penalty=rng.choice([1.0, 1.0, 1.0, 1.3]),
        seed=rng.randrange(2**64),
        logprobs=rng.choice([None, 0, 1, 5]),
        prompt_logprobs=rng.choice([None, None, 0, 3]),
        stop=rng.choice([(), ("the", "a"), ("e",)]),
        stop_token_ids=rng.choice([(), tuple(range(100, 110))]),
        ignore_eos=rng.random() < 0.5,
        logit_bias=rng.choice([(), ((5, 2.5), (0, 3.0))]),
    )
    return Request(id, prompt, params, rng.choice([1, 1, 1, 3]))


def without_cache_hits(answers: list[SequenceOutput]) -> list[SequenceOutput]:
    """The number of cached tokens is all that may differ between runs."""
    for answer in answers:
        answer.num_cached_tokens = 0
    return answers


def best_with_token(logprob: TokenLogprob) -> tuple[int, float]:
    """Of the listed alternatives: in a random model, ids without a token are often the best."""
    return next((id, value) for id, value in logprob.top if id < TOKENIZER.num_tokens)
