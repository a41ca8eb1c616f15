"""The C++ sampler against the definition in ``model/sampling.py``."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pythia_bento.model import sampling
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cpu import build
from pythia_bento.model.kernels.cpu.kernels import CpuKernels
from pythia_bento.model.sampling_row import Penalties, SamplingRow

VOCAB, TOKENS = 1003, 990
PENALTIES = Penalties(
    repetition=1.3,
    frequency=-0.7,
    presence=1.1,
    ids=np.array([3, 5, 101, 700, 998], np.int32),
    counts=np.array([0, 1, 0, 4, 2], np.int32),
)
MASK = np.random.default_rng(3).integers(-(2**31), 2**31, -(-TOKENS // 32)).astype(np.int32)
FEW = np.zeros_like(MASK)
FEW[[3, 30]] = 1 << 5, -(2**31)  # ids 101 and 991, of which the second is no token
FILTERS = [
    {},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 10**6},
    {"top_p": 0.0},
    {"top_p": 0.3},
    {"top_p": 0.999},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 200, "top_p": 0.8, "min_p": 0.01, "temperature": 1.7},
    {"temperature": 0.0},
    {"temperature": 0.0, "bias": ((3, 50.0), (3, -50.0), (7, 100.0))},
    {"bias": ((5, -math.inf), (998, 1000.0), (11, 2.5))},
    {"temperature": 0.0, "penalties": PENALTIES},
    {"temperature": 0.0, "penalties": PENALTIES, "bias": ((3, 9.0), (700, 12.0), (5, -math.inf))},
    {"penalties": PENALTIES, "top_p": 0.9, "bias": ((101, 4.0),)},
    {"mask": MASK},
    {"mask": FEW},
    {"mask": FEW, "temperature": 0.0},
    {"mask": FEW, "temperature": 0.2, "top_k": 40, "penalties": PENALTIES},
    {"mask": MASK, "temperature": 0.0, "penalties": PENALTIES, "bias": ((3, 9.0), (700, 12.0))},
    {"mask": MASK, "top_k": 900, "top_p": 0.9, "min_p": 0.01, "temperature": 1.7},
]


@pytest.fixture(params=build.supported())
def kernels(request: pytest.FixtureRequest) -> CpuKernels:
    return CpuKernels(ModelConfig(1, 16, 1, 64, VOCAB, 64, 4), isa=request.param, threads=2)


@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_choices_follow_the_definition(kernels: CpuKernels, options: dict[str, object]) -> None:
    torch.manual_seed(1)
    logits = torch.randn(24, VOCAB) * 3
    logits[:, 100:110] = logits[:, :1]  # ties
    rows = [SamplingRow(position=i * 97, seed=(i - 3) << 40 | i, **options) for i in range(24)]  # type: ignore[arg-type]
    want = [sampling.choose(logits[i], row, TOKENS) for i, row in enumerate(rows)]
    before = logits.clone()
    assert kernels.sample(logits, rows, TOKENS).tolist() == want
    assert torch.equal(logits, before)


def test_noise_has_gumbels_distribution(kernels: CpuKernels) -> None:
    weights = torch.tensor([0.5, 0.25, 0.15, 0.1])
    logits = torch.full((4000, VOCAB), -100.0)
    logits[:, :4] = weights.log()
    rows = [SamplingRow(position=i, seed=5) for i in range(len(logits))]
    counts = kernels.sample(logits, rows, TOKENS).long().bincount(minlength=4).double()
    chi_square = ((counts - 4000 * weights) ** 2 / (4000 * weights)).sum()
    assert chi_square < 16.3  # 3 degrees of freedom, p = 0.001


def test_a_choice_ignores_the_rows_beside_it(kernels: CpuKernels) -> None:
    torch.manual_seed(2)
    logits = torch.randn(9, VOCAB)
    rows = [SamplingRow(position=i, seed=i, top_p=0.9) for i in range(9)]
    together = kernels.sample(logits, rows, TOKENS).tolist()
    alone = [int(kernels.sample(logits[i : i + 1], rows[i : i + 1], TOKENS)) for i in range(9)]
    assert alone == together


def test_a_tokenless_id_or_a_bad_logit_is_never_chosen(kernels: CpuKernels) -> None:
    logits = torch.zeros(2, VOCAB)
    logits[0, TOKENS] = 100.0
    logits[1, TOKENS] = math.nan
    rows = [SamplingRow(position=0, temperature=0.0)] * 2
    assert kernels.sample(logits, rows, TOKENS).tolist() == [0, -1]
