"""All instruction sets give the same bits, AMX's too, which is emulated where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cpu import build
from pythia_bento.model.kernels.cpu.kernels import CpuKernels
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights
from tests.amounts import rest_long
from tests.unit.model.kernels.cpu.test_kernels import (
    VOCAB,
    config,
    error,
    exact,
    layer,
    norm,
    sequences,
)

VARIANTS = [*build.supported(), *build.EMULATED]
# Depths that end within a tile, and tokens on both sides of where tiles begin and pair.
TOKENS = (1, 3, 4, 8, 9, 16, 17, 37)


def results(isa: str, shape: ModelConfig, tokens: int) -> list[Tensor]:
    """What every entry point that multiplies gives, from the same weights and rows."""
    torch.manual_seed(0)
    weights, x = layer(shape), torch.randn(tokens, shape.hidden_size)
    x *= torch.logspace(-3, 3, tokens)[:, None]
    head = HeadWeights(norm(shape.hidden_size), torch.randn(VOCAB, shape.hidden_size).half())
    kernels = CpuKernels(shape, isa=isa, threads=2)
    packed, batch = kernels.load_layer(weights), sequences((0, tokens))
    qkv, up = kernels.project_in(packed, x)
    given = qkv.clone()
    attended = kernels.attend(0, qkv, kernels.allocate_cache(-(-tokens // 16)), batch)
    y = kernels.project_out(packed, x.clone(), attended, up)
    logits = kernels.logits(kernels.load_head(head), y)
    rows = [SamplingRow(position=3, seed=9)] * tokens
    return [given, up, attended, y, logits, kernels.sample(logits, rows, VOCAB)]


def assert_same_bits(found: list[list[Tensor]]) -> None:
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


NARROW = [(tokens, *shape) for tokens in TOKENS for shape in ((16, 1), (80, 3), (64, 2))]
# The wide one is for many outputs: where tokens are cut is the same at every width.
FEW = [(tokens, 80, 7) for tokens in (1, 9, 17)]
WIDE = rest_long(FEW, [case for tokens in TOKENS if (case := (tokens, 80, 7)) not in FEW])


@pytest.mark.parametrize("case", [*NARROW, *WIDE], ids=str)
def test_instruction_sets_give_the_same_bits(case: tuple[int, int, int]) -> None:
    tokens, head_dim, heads = case
    shape = config(head_dim, heads)
    assert_same_bits([results(isa, shape, tokens) for isa in VARIANTS])


def extreme(out: int, depth: int) -> Int8Linear:
    """Rows of the largest weights of either sign, and of both in turn."""
    weight = torch.full((out, depth), 127, dtype=torch.int8)
    weight[1::3] = -128
    weight[2::3, ::2] = -127
    return Int8Linear(weight, torch.full((out,), 127.0), torch.zeros(out).half())


@pytest.mark.parametrize("tokens", [1, 5, 16])
def test_the_largest_sums_are_exact(tokens: int) -> None:
    """Beyond 2^24 in each of the byte planes, where fp32 holds no integers any more."""
    shape = config(80, 7)
    wide, hidden = shape.intermediate_size, shape.hidden_size
    weights = LayerWeights(
        norm(hidden),
        norm(hidden),
        *(extreme(out, hidden) for out in (3 * hidden, hidden, wide)),
        extreme(hidden, wide),
    )
    attended, up = torch.zeros(tokens, hidden), torch.full((tokens, wide), 3.0)
    up[:, ::7] = 2.9
    found = []
    for isa in VARIANTS:
        kernels = CpuKernels(shape, isa=isa, threads=1)
        packed = kernels.load_layer(weights)
        y = kernels.project_out(packed, torch.zeros(tokens, hidden), attended, up)
        found.append([y])
    assert_same_bits(found)
    assert error(found[0][0], exact(weights.down, up)) < 1e-5
