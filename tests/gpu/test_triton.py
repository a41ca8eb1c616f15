"""The Triton backend against transformers in fp32, and against itself in other company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.sampling import choose
from pythia_bento.model.sampling_row import Penalties, SamplingRow
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights, Norm, Part, parts
from tests.forward import Driver
from tests.tokenizer_parts import raw_tokenizer

HEADS = {32: 4, 64: 4, 80: 8, 128: 2, 256: 1}
VOCAB = 300
PENALTIES = Penalties(
    repetition=1.3,
    frequency=-0.7,
    presence=1.1,
    ids=np.array([3, 5, 11, 200, 295], np.int32),
    counts=np.array([0, 1, 0, 4, 2], np.int32),
)


class RandomWeights:
    """Int8 weights; ``loud`` scales the MLP's so that activations pass what fp16 can hold."""

    def __init__(self, head_dim: int, loud: float = 1.0, heads: int | None = None) -> None:
        heads = heads or HEADS[head_dim]
        hidden = heads * head_dim
        self.config = ModelConfig(2, hidden, heads, 4 * hidden, VOCAB, 1024, head_dim // 4)
        self.loud = loud
        self.random = torch.Generator().manual_seed(head_dim)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.random)

    def linear(self, out: int, into: int, gain: float = 1.0) -> Int8Linear:
        weight = torch.randint(-127, 128, (out, into), generator=self.random, dtype=torch.int8)
        scb = gain * (1 + torch.rand(out, generator=self.random)) / into**0.5
        return Int8Linear(weight, scb, gain * 0.1 * self.normal(out))

    def norm(self) -> Norm:
        size = self.config.hidden_size
        return Norm(1 + 0.1 * self.normal(size), 0.1 * self.normal(size))

    def order(self) -> list[Part]:
        return parts(self.config)

    def embedding(self) -> torch.Tensor:
        self.random.manual_seed(1)
        return self.normal(VOCAB, self.config.hidden_size).half()

    def layer(self, index: int) -> LayerWeights:
        self.random.manual_seed(10 + index)
        size, up, down = self.config.hidden_size, self.loud, 1 / self.loud
        return LayerWeights(
            input_norm=self.norm(),
            post_attention_norm=self.norm(),
            qkv=self.linear(3 * size, size),
            dense=self.linear(size, size),
            up=self.linear(4 * size, size, up),
            down=self.linear(size, 4 * size, down),
        )

    def head(self) -> HeadWeights:
        self.random.manual_seed(2)
        size = self.config.hidden_size
        return HeadWeights(self.norm(), (self.normal(VOCAB, size) / size**0.5).half())


def on_gpu(weights: RandomWeights) -> GPTNeoX:
    from pythia_bento.model.kernels.gpu.kernels import TritonKernels

    return GPTNeoX(weights, TritonKernels(weights.config, torch.device("cuda")))


def reference(weights: RandomWeights, ids: list[int]) -> torch.Tensor:
    """Log-probabilities at every position, fp64: the definition, written out."""

    def product(linear: Int8Linear, x: torch.Tensor) -> torch.Tensor:
        real = linear.weight.double() * linear.scb.double()[:, None] / 127
        return x @ real.T + linear.bias.double()

    def normed(norm: Norm, x: torch.Tensor) -> torch.Tensor:
        shape = (x.shape[-1],)
        return torch.nn.functional.layer_norm(x, shape, norm.weight.double(), norm.bias.double())

    def rotated(x: torch.Tensor) -> torch.Tensor:
        turn, rest = x[..., : c.rotary_dims], x[..., c.rotary_dims :]
        half = torch.cat([-turn[..., c.rotary_dims // 2 :], turn[..., : c.rotary_dims // 2]], -1)
        return torch.cat([turn * angle.cos() + half * angle.sin(), rest], -1)

    c, count = weights.config, len(ids)
    steps = torch.arange(0, c.rotary_dims, 2).double() / c.rotary_dims
    angle = torch.arange(count).double()[:, None] / c.rotary_base**steps
    angle = torch.cat([angle, angle], 1)
    x = weights.embedding()[ids].double()
    for index in range(c.num_layers):
        layer = weights.layer(index)
        qkv = product(layer.qkv, normed(layer.input_norm, x))
        q, k, v = qkv.view(count, c.num_heads, 3, c.head_dim).permute(2, 1, 0, 3)
        score = rotated(q) @ rotated(k).transpose(1, 2) / c.head_dim**0.5
        score = score.masked_fill(torch.ones(count, count).triu(1).bool(), -torch.inf)
        attended = (score.softmax(-1) @ v).transpose(0, 1).reshape(count, -1)
        up = torch.nn.functional.gelu(product(layer.up, normed(layer.post_attention_norm, x)))
        x = x + product(layer.dense, attended) + product(layer.down, up)
    head = weights.head()
    return (normed(head.norm, x) @ head.weight.double().T).log_softmax(-1)


@pytest.mark.parametrize("loud", [1.0, 1e6])
@pytest.mark.parametrize("head_dim", HEADS)
def test_log_probabilities_are_those_of_the_definition(head_dim: int, loud: float) -> None:
    weights = RandomWeights(head_dim, loud)
    prompt = [(7 * i) % VOCAB for i in range(150)]
    found = Driver(on_gpu(weights), [prompt], 0).prefill_logits(0).double().log_softmax(-1)
    assert (found - reference(weights, prompt)).abs().max() <= 5e-3


@pytest.mark.parametrize("head_dim", HEADS)
def test_chunks_of_any_size_have_the_same_bits(head_dim: int) -> None:
    model = on_gpu(RandomWeights(head_dim))
    prompt = [(11 * i) % VOCAB for i in range(900)]  # in one pass, weights are widened
    whole = Driver(model, [prompt], 0).prefill_logits(0)
    for chunk in (1, 33, 600):
        assert torch.equal(Driver(model, [prompt], 0).prefill_logits(0, chunk), whole)


@pytest.mark.parametrize("head_dim", HEADS)
def test_captured_decode_has_the_bits_of_scoring(head_dim: int) -> None:
    weights = RandomWeights(head_dim)
    tokenizer = Tokenizer(raw_tokenizer())
    requests = [
        Request(
            str(i),
            tuple((13 * i + j) % tokenizer.num_tokens for j in range(1 + 17 * i)),
            SamplingParams(
                max_tokens=20,
                temperature=i % 3 / 2,
                seed=i,
                ignore_eos=True,
                logprobs=1 if i % 4 == 0 else None,
                top_k=5 if i % 5 == 0 else 0,
                frequency_penalty=0.8 if i % 6 == 1 else 0.0,
                repetition_penalty=1.2 if i % 7 == 2 else 1.0,
            ),
        )
        for i in range(12)
    ]
    model, sizes = on_gpu(weights), EngineConfig(80, 16, 1024)
    engine = Engine(make_executor(model, sizes, tokenizer.num_tokens), tokenizer)
    together = engine.generate(requests)
    for request, [answer] in zip(requests, together, strict=True):
        [[alone]] = engine.generate([request])
        assert alone.token_ids == answer.token_ids
        assert alone.logprobs == answer.logprobs
        if answer.logprobs is not None:
            scored = Request(
                "score",
                request.prompt + tuple(answer.token_ids),
                SamplingParams(max_tokens=0, prompt_logprobs=0),
            )
            [[score]] = engine.generate([scored])
            assert score.prompt_logprobs is not None
            ours = [entry.logprob for entry in answer.logprobs]
            assert [e.logprob for e in score.prompt_logprobs][-20:] == ours
    engine.close()


def test_choices_are_those_of_the_definition() -> None:
    kernels = on_gpu(RandomWeights(32)).kernels
    logits = 2 * torch.randn(64, VOCAB, generator=torch.Generator().manual_seed(3))
    rows = [
        SamplingRow(
            i,
            temperature=i % 4 / 2,
            top_k=[0, 5][i % 2],
            top_p=[1.0, 0.6][i // 2 % 2],
            min_p=[0.0, 0.1][i // 4 % 2],
            seed=i * 2**40 - 9,
            bias=((3, 1.5),) if i % 3 else (),
            penalties=PENALTIES if i % 5 == 0 else None,
        )
        for i in range(64)
    ]
    logits[5, 7] = torch.nan
    found = kernels.sample(logits.cuda(), rows, VOCAB - 9).tolist()
    assert found == [choose(row, want, VOCAB - 9) for row, want in zip(logits, rows, strict=True)]
    assert found[5] == -1
