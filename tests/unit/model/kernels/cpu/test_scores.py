"""Log-probabilities and ranks of the CPU's kernels against the reference, odd rows among them."""

from __future__ import annotations

import math

import pytest
import torch

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cpu import build
from pythia_bento.model.kernels.cpu.kernels import CpuKernels
from pythia_bento.model.kernels.reference.kernels import ReferenceKernels
from pythia_bento.model.weights import HeadWeights, Norm

VOCAB = 303  # no multiple of the vectors
CONFIG = ModelConfig(1, 128, 4, 512, VOCAB, 64, 8)


def odd_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Ties, numbers that are none, extreme ones, and targets that are no ids."""
    logits = 3 * torch.randn(12, VOCAB, generator=torch.Generator().manual_seed(0))
    logits[1] = 0
    logits[2, 7] = logits[2, VOCAB - 1] = 30
    logits[3, 5], logits[4, 6], logits[5, VOCAB - 2] = math.nan, math.inf, -math.inf
    logits[6] = 1e38 * logits[6].sign()
    logits[7, ::2], logits[7, 1::2] = -0.0, 0.0
    logits[8, 3] = logits[8, 4] = 1e-40
    targets = [0, VOCAB - 1, VOCAB - 1, 3, 3, 3, 5, 9, 4, -1, VOCAB, int(logits[11].argmax())]
    return logits, torch.tensor(targets, dtype=torch.int32)


@pytest.mark.parametrize("isa", build.supported())
@pytest.mark.parametrize("num_top", [0, 1, 2, 20, VOCAB])
def test_scores_are_those_of_the_reference(isa: str, num_top: int) -> None:
    logits, targets = odd_rows()
    want = ReferenceKernels(CONFIG, torch.device("cpu")).logprobs(logits, targets, num_top)
    found = CpuKernels(CONFIG, isa=isa).logprobs(logits, targets, num_top)
    assert found.ranks.tolist() == want.ranks.tolist()
    assert found.top_ids.tolist() == want.top_ids.tolist()
    sound = want.ranks > 0
    assert sound.tolist() == [i not in (3, 4, 5, 9, 10) for i in range(12)]
    # The normaliser is one fp32 number, so that of huge logits is rounded as they are.
    least = 1e-5 + 2e-7 * logits.abs().amax(1)
    assert ((found.chosen - want.chosen).abs() <= least)[sound].all()
    assert ((found.top - want.top).abs() <= least[:, None])[sound].all()
    assert found.chosen[~sound].isnan().all()
    assert found.top[~sound].isnan().all()


@pytest.mark.parametrize("isa", build.supported())
def test_one_alternative_is_the_first_of_many(isa: str) -> None:
    logits, targets = odd_rows()
    kernels = CpuKernels(CONFIG, isa=isa)
    none, one, many = (kernels.logprobs(logits, targets, count) for count in (0, 1, 9))
    assert torch.equal(one.top_ids, many.top_ids[:, :1])
    assert torch.equal(one.top.view(torch.int32), many.top[:, :1].contiguous().view(torch.int32))
    for other in (one, many):
        assert torch.equal(none.chosen.view(torch.int32), other.chosen.view(torch.int32))


@pytest.mark.parametrize("isa", build.supported())
@pytest.mark.parametrize(("rows", "num_top"), [(1, 0), (5, 1), (128, 1), (130, 3)])
def test_scores_of_hidden_states_have_the_bits_of_their_logits(
    isa: str, rows: int, num_top: int
) -> None:
    """On both sides of the rows that are scored at a time."""
    generator = torch.Generator().manual_seed(rows)
    kernels, hidden = CpuKernels(CONFIG, isa=isa, threads=2), CONFIG.hidden_size
    weight = torch.randn(VOCAB, hidden, generator=generator).half()
    head = kernels.load_head(HeadWeights(Norm(torch.ones(hidden), torch.zeros(hidden)), weight))
    x = torch.randn(rows, hidden, generator=generator)
    x[rows // 2] = math.nan
    targets = torch.randint(-1, VOCAB + 1, (rows,), generator=generator, dtype=torch.int32)
    want = kernels.logprobs(kernels.logits(head, x), targets, num_top)
    found = kernels.scores(head, x, targets, num_top)
    assert torch.equal(found.chosen.view(torch.int32), want.chosen.view(torch.int32))
    assert torch.equal(found.top.view(torch.int32), want.top.view(torch.int32))
    assert torch.equal(found.ranks, want.ranks)
    assert torch.equal(found.top_ids, want.top_ids)


def test_more_alternatives_than_logits_are_refused_before_anything_is_written() -> None:
    kernels, hidden = CpuKernels(CONFIG), CONFIG.hidden_size
    norm = Norm(torch.ones(hidden), torch.zeros(hidden))
    head = kernels.load_head(HeadWeights(norm, torch.zeros(VOCAB, hidden).half()))
    with pytest.raises(ValueError, match="pythia_scores: more alternatives"):
        kernels.scores(head, torch.zeros(1, hidden), torch.zeros(1, dtype=torch.int32), VOCAB + 1)
