"""The C++ kernels against torch in fp64, and their promise of the same bits for every batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cpu import build
from pythia_bento.model.kernels.cpu.kernels import FINE, CpuKernels
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights, Norm

# (head_dim, heads): Pythia's five head sizes; the first three get the finer activations of small
# models, and 240 leaves a partly filled panel.
SHAPES = [(32, 4), (64, 2), (80, 3), (128, 4), (256, 2)]
VOCAB = 203


def config(head_dim: int = 32, heads: int = 4) -> ModelConfig:
    hidden = head_dim * heads
    return ModelConfig(1, hidden, heads, 4 * hidden, VOCAB, 256, head_dim // 4)


def linear(out: int, depth: int) -> Int8Linear:
    return Int8Linear(
        torch.randint(-127, 128, (out, depth), dtype=torch.int8),
        torch.rand(out) * 0.2 + 0.01,
        torch.randn(out).half(),
    )


def norm(size: int) -> Norm:
    return Norm(1 + 0.1 * torch.randn(size), 0.1 * torch.randn(size))


def layer(shape: ModelConfig) -> LayerWeights:
    hidden, wide = shape.hidden_size, shape.intermediate_size
    return LayerWeights(
        norm(hidden),
        norm(hidden),
        linear(3 * hidden, hidden),
        linear(hidden, hidden),
        linear(wide, hidden),
        linear(hidden, wide),
    )


def exact(linear: Int8Linear, x: Tensor) -> Tensor:
    weight = linear.weight.double() * linear.scb.double()[:, None] / 127
    return x.double() @ weight.T + linear.bias.double()


def layer_norm(norm: Norm, x: Tensor) -> Tensor:
    shape = (x.shape[-1],)
    weight, bias = norm.weight.double(), norm.bias.double()
    return torch.nn.functional.layer_norm(x.double(), shape, weight, bias, 1e-5)


def error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


def sequences(*spans: tuple[int, int]) -> ForwardBatch:
    """One sequence for each (tokens already cached, new tokens), blocks interleaved in the pool."""
    count, ints = len(spans), lambda values: torch.tensor(values, dtype=torch.int32)
    width = max((start + new + 15) // 16 for start, new in spans)
    tables = [[s + count * i for i in range(width)] for s in range(count)]
    positions = [p for start, new in spans for p in range(start, start + new)]
    owners = [s for s, (_, new) in enumerate(spans) for _ in range(new)]
    slots = [tables[s][p // 16] * 16 + p % 16 for s, p in zip(owners, positions, strict=True)]
    starts = [sum(new for _, new in spans[:s]) for s in range(count + 1)]
    return ForwardBatch(
        ints([0] * len(positions)),
        ints(positions),
        ints(slots),
        ints(starts),
        ints([start + new for start, new in spans]),
        ints(tables),
    )


@pytest.fixture(params=build.supported())
def isa(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(0)
    return str(request.param)


@pytest.mark.parametrize(("head_dim", "heads"), SHAPES)
def test_linears_agree_with_fp64(isa: str, head_dim: int, heads: int) -> None:
    shape = config(head_dim, heads)
    weights, kernels = layer(shape), CpuKernels(shape, isa=isa)
    packed = kernels.load_layer(weights)
    x = torch.randn(7, shape.hidden_size)
    x[:, 3] *= 40  # an outlier column, as trained models have
    bound = 2e-6 if shape.hidden_size < FINE else 1e-3
    qkv, up = kernels.project_in(packed, x)
    assert error(qkv, exact(weights.qkv, layer_norm(weights.input_norm, x))) < bound
    gelu = torch.nn.functional.gelu
    want = gelu(exact(weights.up, layer_norm(weights.post_attention_norm, x)))
    assert error(up, want) < bound
    attended = torch.randn(7, shape.hidden_size)
    want = x.double() + exact(weights.dense, attended) + exact(weights.down, up)
    assert error(kernels.project_out(packed, x.clone(), attended, up), want) < bound


@pytest.mark.parametrize(("head_dim", "heads"), [(80, 3), (80, 7)])
def test_rows_do_not_depend_on_their_neighbours(isa: str, head_dim: int, heads: int) -> None:
    shape = config(head_dim, heads)
    weights, kernels = layer(shape), CpuKernels(shape, isa=isa, threads=3)
    packed = kernels.load_layer(weights)
    x = torch.randn(11, shape.hidden_size) * torch.logspace(-3, 3, 11)[:, None]
    qkv, up = kernels.project_in(packed, x)
    y = kernels.project_out(packed, x.clone(), qkv[:, : shape.hidden_size].contiguous(), up)
    for rows in ([0], [10], [5, 2], [9, 1, 4, 3, 7]):
        some = x[rows].contiguous()
        qkv_some, up_some = kernels.project_in(packed, some)
        assert torch.equal(qkv_some, qkv[rows])
        assert torch.equal(up_some, up[rows])
        first = qkv_some[:, : shape.hidden_size].contiguous()
        assert torch.equal(kernels.project_out(packed, some.clone(), first, up_some), y[rows])


def attention(kernels: CpuKernels, qkv: Tensor, spans: list[tuple[int, int]]) -> list[Tensor]:
    """Attend for sequences that start empty and take their tokens in the given chunk sizes."""
    cache = kernels.allocate_cache(64)
    rows = []
    for start, new in spans:
        batch = sequences((start, new))
        rows.append(kernels.attend(0, qkv[start : start + new].clone(), cache, batch))
    return rows


@pytest.mark.parametrize(("head_dim", "heads"), SHAPES)
def test_attention_agrees_with_fp64(isa: str, head_dim: int, heads: int) -> None:
    shape = config(head_dim, heads)
    kernels, tokens = CpuKernels(shape, isa=isa), 53
    qkv = torch.randn(tokens, 3 * shape.hidden_size)
    got = attention(kernels, qkv, [(0, tokens)])[0]
    want = attend_exactly(qkv, shape)
    assert error(got, want) < 1e-5


def attend_exactly(qkv: Tensor, shape: ModelConfig) -> Tensor:
    tokens, heads, head_dim = len(qkv), shape.num_heads, shape.head_dim
    q, k, v = qkv.double().view(tokens, heads, 3, head_dim).permute(2, 1, 0, 3)
    q, k = rotate(q, shape.rotary_dims), rotate(k, shape.rotary_dims)
    scores = q @ k.transpose(1, 2) / math.sqrt(head_dim)
    scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).reshape(tokens, -1)


def rotate(x: Tensor, dims: int) -> Tensor:
    """GPT-NeoX's rotary embedding of [heads, tokens, head_dim] in fp64."""
    half = dims // 2
    frequency = 10000.0 ** (-torch.arange(half).double() / half)
    angle = torch.arange(x.shape[1]).double()[:, None] * frequency
    a, b = x[..., :half], x[..., half:dims]
    turned = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()]
    return torch.cat([*turned, x[..., dims:]], -1)


@pytest.mark.parametrize("chunks", [[1] * 37, [16, 21], [3, 30, 4], [36, 1]])
def test_attention_does_not_depend_on_the_chunks(isa: str, chunks: list[int]) -> None:
    shape = config(80, 3)
    kernels = CpuKernels(shape, isa=isa)
    qkv = torch.randn(37, 3 * shape.hidden_size)
    whole = attention(kernels, qkv, [(0, 37)])[0]
    spans = [(sum(chunks[:i]), new) for i, new in enumerate(chunks)]
    assert torch.equal(torch.cat(attention(kernels, qkv, spans)), whole)


def test_attention_does_not_depend_on_other_sequences(isa: str) -> None:
    shape = config(64, 2)
    kernels = CpuKernels(shape, isa=isa, threads=3)
    lengths = [5, 33, 1, 16, 48]
    qkv = [torch.randn(n, 3 * shape.hidden_size) for n in lengths]
    alone = [attention(kernels, one, [(0, len(one))])[0] for one in qkv]
    cache = kernels.allocate_cache(64)
    for left_behind in (cache.keys, cache.values):
        left_behind.fill_(math.nan)  # must never be read
    together = kernels.attend(0, torch.cat(qkv), cache, sequences(*((0, n) for n in lengths)))
    assert torch.equal(together, torch.cat(alone))


def test_a_row_that_is_not_finite_stays_alone(isa: str) -> None:
    shape = config()
    weights, kernels = layer(shape), CpuKernels(shape, isa=isa)
    packed = kernels.load_layer(weights)
    head = HeadWeights(norm(128), torch.randn(VOCAB, 128).half())
    clean = torch.randn(3, shape.hidden_size)
    broken = clean.clone()
    broken[1, 5] = math.inf
    for x in (clean, broken):
        kernels.project_in(packed, x)
    good, bad = (kernels.project_in(packed, x)[1] for x in (clean, broken))
    assert torch.equal(good[[0, 2]], bad[[0, 2]])
    assert not bad[1].isfinite().any()
    logits = kernels.logits(kernels.load_head(head), broken)
    rows = [SamplingRow(position=0, temperature=0.0)] * 3
    assert kernels.sample(logits, rows, VOCAB)[1] == -1
    chosen = kernels.logprobs(logits, torch.zeros(3, dtype=torch.int32), 2).chosen
    assert chosen.isfinite().tolist() == [True, False, True]


def test_huge_and_tiny_rows_keep_their_precision(isa: str) -> None:
    shape = config()
    weights, kernels = layer(shape), CpuKernels(shape, isa=isa)
    packed = kernels.load_layer(weights)
    up = torch.zeros(4, shape.intermediate_size)
    for size in (1e-30, 1.0, 1e6, 1e30):
        attended = torch.randn(4, shape.hidden_size) * size
        attended[3] = 0
        got = kernels.project_out(packed, torch.zeros(4, 128), attended, up)
        want = exact(weights.dense, attended) + weights.down.bias.double()
        assert error(got, want) < 1e-3
        assert torch.equal(got[3], weights.dense.bias.float() + weights.down.bias.float())


def test_head_keeps_the_precision_of_fp16(isa: str) -> None:
    shape = config()
    kernels = CpuKernels(shape, isa=isa)
    head = HeadWeights(norm(128), torch.randn(VOCAB, 128).half())
    x = torch.randn(6, 128)
    logits = kernels.logits(kernels.load_head(head), x)
    want = layer_norm(head.norm, x) @ head.weight.double().T
    assert (logits.double() - want).abs().max() < 2e-3
    assert torch.equal(kernels.logits(kernels.load_head(head), x[4:5]), logits[4:5])


def test_logprobs_are_the_log_softmax(isa: str) -> None:
    kernels = CpuKernels(config(), isa=isa)
    logits = torch.randn(5, VOCAB) * 4
    logits[2, 10] = logits[2, 20] = 30.0  # a tie goes to the lower id
    chosen = torch.tensor([0, 7, 10, 202, 100], dtype=torch.int32)
    got = kernels.logprobs(logits, chosen, 4)
    want = logits.double().log_softmax(-1)
    assert torch.allclose(got.chosen.double(), want[torch.arange(5), chosen.long()], atol=2e-6)
    assert torch.allclose(got.top.double(), want.sort(descending=True).values[:, :4], atol=2e-6)
    assert got.top_ids[2, :2].tolist() == [10, 20]
    best = logits.argmax(-1).to(torch.int32)
    greedy = kernels.logprobs(logits, best, 1)
    assert torch.equal(greedy.chosen, greedy.top[:, 0])


def test_sizes_that_do_not_fit_the_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        CpuKernels(ModelConfig(1, 40, 1, 160, VOCAB, 64, 10))
