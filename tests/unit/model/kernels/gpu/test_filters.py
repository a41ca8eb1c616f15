"""What the Triton backend does in torch, on CPU tensors, against ``model/sampling.py``."""

from __future__ import annotations

import math

import numpy as np
import torch

from pythia_bento.model.kernels.gpu import filters
from pythia_bento.model.sampling import candidates, penalised
from pythia_bento.model.sampling_row import Penalties, SamplingRow

VOCAB, TOKENS = 307, 300


def rows() -> list[SamplingRow]:
    rng = np.random.default_rng(4)
    return [
        SamplingRow(
            position=index,
            temperature=[0.0, 0.7, 1.0][index % 3],
            top_k=[0, 5][index % 2],
            top_p=[1.0, 0.6][index // 2 % 2],
            min_p=[0.0, 0.1][index // 4 % 2],
            bias=[(), ((3, 1.5), (TOKENS + 2, 9.0)), ((7, -math.inf),)][index % 3],
            penalties=some_penalties(rng) if index % 5 else None,
        )
        for index in range(48)
    ]


def some_penalties(rng: np.random.Generator) -> Penalties:
    ids = rng.permutation(VOCAB)[: rng.integers(0, 60)].astype(np.int32)
    counts = rng.integers(0, 5, len(ids)).astype(np.int32)
    return Penalties(rng.choice([1.0, 1.3, 0.6]), rng.choice([0.0, 0.7]), -0.4, ids, counts)


def test_masked_logits_are_those_of_the_definition() -> None:
    logits = 3 * torch.randn(48, VOCAB, generator=torch.Generator().manual_seed(1))
    found = filters.masked(logits, rows(), TOKENS)
    for row, own, got in zip(rows(), logits, found, strict=True):
        raw = own[:TOKENS].clone()
        for token, value in row.bias:
            if token < TOKENS:
                raw[token] += value
        wanted = penalised(raw, row.penalties)
        if row.temperature > 0:
            kept = torch.zeros(TOKENS, dtype=torch.bool)
            kept[candidates(wanted / row.temperature, row)] = True
            wanted = wanted.masked_fill(~kept, -math.inf)
        assert torch.equal(got[:TOKENS], wanted)
        assert torch.equal(got[TOKENS:], own[TOKENS:])


def test_a_row_alone_has_the_bits_it_has_in_company() -> None:
    logits = 3 * torch.randn(48, VOCAB, generator=torch.Generator().manual_seed(2))
    together = filters.masked(logits, rows(), TOKENS)
    for index, row in enumerate(rows()):
        alone = filters.masked(logits[index : index + 1], [row], TOKENS)
        assert torch.equal(alone[0], together[index])


def test_rows_with_penalties_need_the_filters() -> None:
    plain = SamplingRow(0)
    counts = np.ones(1, np.int32)
    repeated = SamplingRow(0, penalties=Penalties(1.1, 0, 0, counts, counts))
    assert not filters.needed([plain])
    assert filters.needed([plain, repeated])
