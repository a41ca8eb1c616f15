"""The C++ sampler's draws have the distribution that each filter leaves."""

from __future__ import annotations

import numpy as np
import pytest

from pythia_bento.model import sampling
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cpu import build
from pythia_bento.model.kernels.cpu.kernels import CpuKernels
from pythia_bento.model.sampling_row import SamplingRow
from tests import draws

FEW = 30_000


def kernels(isa: str) -> CpuKernels:
    return CpuKernels(ModelConfig(1, 16, 1, 64, draws.VOCAB, 64, 4), isa=isa, threads=2)


@pytest.mark.no_cover
@pytest.mark.parametrize("name", draws.FILTERS)
def test_draws_have_the_distribution_of_the_filter(name: str) -> None:
    options = draws.FILTERS[name]
    draws.check(draws.drawn(kernels(build.supported()[0]).sample, options, FEW), options)


@pytest.mark.long
@pytest.mark.parametrize("name", draws.FILTERS)
def test_a_million_draws_have_the_distribution_of_the_filter(name: str) -> None:
    options = draws.FILTERS[name]
    draws.check(draws.drawn(kernels(build.supported()[0]).sample, options, 1_000_000), options)


@pytest.mark.parametrize("name", draws.FILTERS)
def test_the_definition_has_candidates_where_the_reference_has(name: str) -> None:
    options = draws.FILTERS[name]
    row = SamplingRow(0, **options)
    raw = draws.logits()[: draws.TOKENS]
    raw = sampling.penalised(sampling._biased(raw, row.bias), row.penalties)
    left = sampling.candidates(raw / row.temperature, row)
    can_be = np.flatnonzero(draws.probabilities(options))
    banned = [id for id, value in row.bias if value == float("-inf")]
    assert sorted({*left.tolist()} - {*banned}) == can_be.tolist()


@pytest.mark.parametrize("wrong", [{"temperature": 0.82}, {"min_p": 0.4}])
def test_another_distribution_is_found_out(wrong: dict[str, float]) -> None:
    options = draws.FILTERS["min_p"]
    sample = kernels(build.supported()[0]).sample
    with pytest.raises(AssertionError):
        draws.check(draws.drawn(sample, {**options, **wrong}, FEW), options)
