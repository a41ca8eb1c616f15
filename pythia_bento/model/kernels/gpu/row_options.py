"""Sampling rows as the arrays that the kernels read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pythia_bento.model.batch import RowOptions
from pythia_bento.model.sampling_row import Penalties, SamplingRow

_NONE = Penalties(1.0, 0.0, 0.0, np.zeros(0, np.int32), np.zeros(0, np.int32))


def row_options(rows: Sequence[SamplingRow], device: torch.device) -> RowOptions | None:
    """Options of rows of logits; None where temperature is all that any of them takes."""
    active = [has_options(row) for row in rows]
    if not any(active):
        return None
    biases = [entry for row in rows for entry in row.bias]
    values = np.array([value for _, value in biases] or [0.0], np.float32)
    penalties = [row.penalties or _NONE for row in rows]

    def put(values: object, dtype: type) -> Tensor:
        return torch.from_numpy(np.array(values, dtype)).to(device)

    return RowOptions(
        active=put(active, np.int32),
        top_k=put([row.top_k for row in rows], np.int32),
        top_p=put([row.top_p for row in rows], np.float64),
        min_p=put([row.min_p for row in rows], np.float32),
        bias_starts=put(np.cumsum([0, *(len(row.bias) for row in rows)]), np.int32),
        bias_ids=put([token for token, _ in biases] or [0], np.int32),
        biases=put([values, values], np.float32),
        early=put([0] * len(rows), np.int32),
        penalties=put(
            [(p.repetition, p.frequency, p.presence) for p in penalties], np.float32
        ).T.contiguous(),
        prompt_lens=put([0 if row.penalties else -1 for row in rows], np.int32),
        seen=put(_seen(penalties), np.int32),
        num_seen=put([len(p.ids) for p in penalties], np.int32),
    )


def has_options(row: SamplingRow) -> bool:
    """Whether a row asks for more than temperature."""
    is_filtered = row.top_k > 0 or row.top_p < 1 or row.min_p > 0
    return is_filtered or bool(row.bias) or row.penalties is not None


def _seen(penalties: Sequence[Penalties]) -> np.ndarray:
    """Tokens and counts; nothing follows an entry, as they are distinct."""
    width = max(1, *(len(p.ids) for p in penalties))
    seen = np.zeros((3, len(penalties), width), np.int32)
    for row, found in enumerate(penalties):
        seen[0, row, : len(found.ids)] = found.ids
        seen[1, row, : len(found.ids)] = found.counts
    return seen
