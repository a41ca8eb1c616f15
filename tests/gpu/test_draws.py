"""The GPU's draws have the distribution that each filter leaves, and are those of the CPU."""

from __future__ import annotations

import pytest
import torch

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cpu import build
from pythia_bento.model.kernels.cpu.kernels import CpuKernels
from tests import draws

CONFIG = ModelConfig(1, 128, 4, 512, draws.VOCAB, 64, 8)


@pytest.mark.parametrize("name", draws.FILTERS)
def test_a_million_draws_have_the_distribution_of_the_filter(name: str) -> None:
    from pythia_bento.model.kernels.gpu.kernels import TritonKernels

    options, device = draws.FILTERS[name], torch.device("cuda")
    tokens = draws.drawn(TritonKernels(CONFIG, device).sample, options, 1_000_000, "cuda")
    draws.check(tokens, options)
    cpu = CpuKernels(CONFIG, isa=build.supported()[0], threads=2)
    same = draws.drawn(cpu.sample, options, 100_000)
    assert torch.equal(tokens[: len(same)], same)
