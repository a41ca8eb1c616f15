"""Draws by every filter of sampling, against probabilities that numpy computes in fp64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from pythia_bento.model.sampling_row import Penalties, SamplingRow

VOCAB, TOKENS = 64, 60  # rows of the head, and those of them that may be chosen
AT_ONCE = 20_000
PENALTIES = Penalties(
    repetition=1.4,
    frequency=0.3,
    presence=0.2,
    ids=np.array([0, 3, 7, 20, 41], np.int32),
    counts=np.array([1, 0, 4, 2, 1], np.int32),
)
FILTERS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.8},
    "top_k": {"top_k": 12},
    "top_p": {"temperature": 0.8, "top_p": 0.9},
    "min_p": {"min_p": 0.05},
    "penalties": {"penalties": PENALTIES},
    "bias": {"bias": ((2, 2.5), (5, float("-inf")), (30, -1.0))},
    "all": {
        "temperature": 1.3,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.02,
        "bias": ((2, 2.5), (5, float("-inf"))),
        "penalties": PENALTIES,
    },
}

Sample = Callable[[torch.Tensor, Sequence[SamplingRow], int], torch.Tensor]


def logits() -> torch.Tensor:
    """Fp32 [VOCAB]; ids from TOKENS on would win if they could."""
    values = 2 * torch.randn(VOCAB, generator=torch.Generator().manual_seed(7)).tanh()
    values[TOKENS:] = 20.0
    return values


def drawn(sample: Sample, options: dict[str, Any], draws: int, device: str = "cpu") -> torch.Tensor:
    """Int32 [draws] on the host: one token for each position of a sequence."""
    beside = logits().expand(AT_ONCE, -1).contiguous().to(device)
    parts = []
    for start in range(0, draws, AT_ONCE):
        positions = range(start, min(start + AT_ONCE, draws))
        rows = [SamplingRow(position=at, seed=3 << 40 | 9, **options) for at in positions]
        parts.append(sample(beside[: len(rows)], rows, TOKENS).cpu())
    return torch.cat(parts)


def probabilities(options: dict[str, Any]) -> np.ndarray:
    """Fp64 [TOKENS], as ``model/sampling.py`` defines them."""
    z = logits()[:TOKENS].double().numpy().copy()
    for id, value in options.get("bias", ()):
        z[id] += value
    if (seen := options.get("penalties")) is not None:
        z[seen.ids] *= np.where(z[seen.ids] > 0, 1 / seen.repetition, seen.repetition)
        z[seen.ids] -= seen.counts * seen.frequency + (seen.counts > 0) * seen.presence
    z /= options.get("temperature", 1.0)
    ranked = np.argsort(-z, kind="stable")[: options.get("top_k") or TOKENS]
    weights = np.exp(z[ranked] - z[ranked[0]])
    before = np.concatenate([[0.0], weights.cumsum()[:-1]])
    stays = (before < options.get("top_p", 2.0) * weights.sum()) & (
        weights >= options.get("min_p", 0.0)
    )
    found = np.zeros(TOKENS)
    found[ranked[stays]] = weights[stays] / weights[stays].sum()
    return found


def check(tokens: torch.Tensor, options: dict[str, Any]) -> None:
    """Raise AssertionError where the draws are not of that distribution: p below 1e-4."""
    expected = probabilities(options) * len(tokens)
    counts = np.bincount(tokens.numpy(), minlength=TOKENS)
    assert len(counts) == TOKENS and counts[expected == 0].sum() == 0
    can_be = expected > 0
    assert expected[can_be].min() > 10  # else the statistic has another distribution
    statistic = ((counts - expected)[can_be] ** 2 / expected[can_be]).sum()
    assert statistic < chi_square_bound(int(can_be.sum()) - 1)


def chi_square_bound(degrees: int, deviations: float = 3.719) -> float:
    """What it passes with a probability of 1e-4 (Wilson and Hilferty, 1931)."""
    share = 2 / (9 * degrees)
    return float(degrees * (1 - share + deviations * share**0.5) ** 3)
