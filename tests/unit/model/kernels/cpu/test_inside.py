"""What the C++ kernels show of their inside: attention weights, both second products, the norm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.kernels.cpu import build
from pythia_bento.model.kernels.cpu.kernels import FINE, CpuKernels
from pythia_bento.model.weights import HeadWeights
from tests.unit.model.kernels.cpu.test_kernels import (
    SHAPES,
    VOCAB,
    config,
    error,
    exact,
    layer,
    layer_norm,
    norm,
    rotate,
    sequences,
)

SPANS = ((0, 5), (20, 33), (0, 1), (15, 1), (0, 16))
ROWS = [0, 4, 5, 30, 37, 38, 39, 41, 55]


@pytest.fixture(params=build.supported())
def isa(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(0)
    return str(request.param)


def attended(kernels: CpuKernels, batch: ForwardBatch) -> tuple[Tensor, object]:
    """qkv as attention leaves it, and the cache; earlier positions come from passes before."""
    torch.manual_seed(1)
    cache, hidden = kernels.allocate_cache(64), kernels.config.hidden_size
    before = sequences(*((0, max(start, 1)) for start, _ in SPANS))
    kernels.attend(0, torch.randn(len(before.positions), 3 * hidden), cache, widened(before))
    qkv = torch.randn(len(batch.positions), 3 * hidden)
    kernels.attend(0, qkv, cache, batch)
    return qkv, cache


def widened(batch: ForwardBatch) -> ForwardBatch:
    """With the blocks of a batch of the whole spans."""
    tables = sequences(*SPANS).block_tables
    owners = torch.searchsorted(batch.query_starts, torch.arange(len(batch.positions)), right=True)
    blocks = tables[owners - 1, batch.positions // 16]
    return ForwardBatch(
        batch.token_ids,
        batch.positions,
        (blocks * 16 + batch.positions % 16).int(),
        batch.query_starts,
        batch.context_lens,
        tables,
    )


def weights_of(kernels: CpuKernels, rows: list[int]) -> Tensor:
    batch = sequences(*SPANS)
    qkv, cache = attended(kernels, batch)
    keys = batch.block_tables.shape[1] * 16
    return kernels.patterns(0, qkv, cache, batch, torch.tensor(rows), keys)


@pytest.mark.parametrize(("head_dim", "heads"), SHAPES)
def test_weights_are_a_softmax_up_to_the_own_position(isa: str, head_dim: int, heads: int) -> None:
    kernels, tokens = CpuKernels(config(head_dim, heads), isa=isa), 53
    batch, cache = sequences((0, tokens)), kernels.allocate_cache(4)
    raw = torch.randn(tokens, 3 * head_dim * heads)
    q, k, _ = raw.double().view(tokens, heads, 3, head_dim).permute(2, 1, 0, 3)
    scores = rotate(q, head_dim // 4) @ rotate(k, head_dim // 4).mT / math.sqrt(head_dim)
    want = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf).softmax(-1)
    qkv = raw.clone()
    kernels.attend(0, qkv, cache, batch)
    found = kernels.patterns(0, qkv, cache, batch, torch.arange(tokens), 64)
    assert found.shape == (tokens, heads, 64)
    assert (found[..., :tokens] - want.transpose(0, 1)).abs().max() <= 1e-5
    assert (found.double().sum(-1) - 1).abs().max() <= 1e-6
    for position, row in enumerate(found):
        assert not row[:, position + 1 :].any()


def test_rows_have_the_same_weights_in_any_company(isa: str) -> None:
    kernels = CpuKernels(config(80, 3), isa=isa, threads=3)
    together = weights_of(kernels, ROWS)
    for place, row in enumerate(ROWS):
        assert torch.equal(weights_of(kernels, [row])[0], together[place])
    assert weights_of(kernels, []).shape == (0, 3, 64)


def test_instruction_sets_give_the_same_weights() -> None:
    first, *others = (weights_of(CpuKernels(config(), isa=isa), ROWS) for isa in build.supported())
    assert all(torch.equal(first, other) for other in others)


def test_weights_that_are_not_finite_stay_with_their_sequence(isa: str) -> None:
    kernels, batch = CpuKernels(config(), isa=isa), sequences((0, 20), (0, 20))
    cache, qkv = kernels.allocate_cache(4), torch.randn(40, 3 * 128)
    qkv[7, 40] = math.nan  # in a key
    kernels.attend(0, qkv, cache, batch)
    found = kernels.patterns(0, qkv, cache, batch, torch.arange(40), 32)[:, 0]
    bad = found.isnan().any(-1).nonzero()[:, 0].tolist()
    assert bad == list(range(7, 20))
    assert found[7, :8].isnan().all() and not found[7, 8:].any()


@pytest.mark.parametrize(("head_dim", "heads"), SHAPES)
def test_both_second_products_have_the_bits_of_their_sum(
    isa: str, head_dim: int, heads: int
) -> None:
    shape = config(head_dim, heads)
    weights, kernels = layer(shape), CpuKernels(shape, isa=isa, threads=2)
    packed = kernels.load_layer(weights)
    x, z = torch.randn(2, 7, shape.hidden_size)
    up = torch.randn(7, shape.intermediate_size)
    attn_out, mlp_out = kernels.project_out_parts(packed, z, up)
    bound = 2e-6 if shape.hidden_size < FINE else 1e-3
    assert error(attn_out, exact(weights.dense, z)) < bound
    assert error(mlp_out, exact(weights.down, up)) < bound
    whole = kernels.project_out(packed, x.clone(), z, up)
    assert torch.equal((x + attn_out) + mlp_out, whole)


def test_the_norm_is_what_the_head_multiplies(isa: str) -> None:
    kernels = CpuKernels(config(), isa=isa)
    head = HeadWeights(norm(128), torch.randn(VOCAB, 128).half())
    packed = kernels.load_head(head)
    x = 5 * torch.randn(6, 128) + 1
    found = kernels.normalised(packed, x)
    assert error(found, layer_norm(head.norm, x)) < 1e-6
    assert error(kernels.logits(packed, x), found.double() @ head.weight.double().T) < 1e-4
    assert torch.equal(kernels.normalised(packed, x[4:5]), found[4:5])
