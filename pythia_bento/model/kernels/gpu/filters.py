"""Biases, penalties and the filters top-k, top-p and min-p, as masks over rows of logits.

Sums of weights are integers (40 fractional bits), so no order of addition can change a choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pythia_bento.model.sampling_row import SamplingRow

_ONE = float(1 << 40)


def needed(rows: Sequence[SamplingRow]) -> bool:
    """Whether any row asks for more than temperature."""
    return any(row.bias or row.penalties or _is_filtered(row) for row in rows)


def masked(logits: Tensor, rows: Sequence[SamplingRow], num_tokens: int) -> Tensor:
    """A copy of fp32 ``logits`` [R, V], biased and penalised; what filters drop is -inf."""
    logits = _penalised(_biased(logits.clone(), rows, num_tokens), rows, num_tokens)
    picked = [i for i, row in enumerate(rows) if row.temperature > 0 and _is_filtered(row)]
    if picked:
        index = torch.tensor(picked, device=logits.device)
        kept = _kept(logits[index, :num_tokens], [rows[i] for i in picked])
        part = logits[index]
        part[:, :num_tokens].masked_fill_(~kept, float("-inf"))
        logits[index] = part
    return logits


def _is_filtered(row: SamplingRow) -> bool:
    return row.top_k > 0 or row.top_p < 1 or row.min_p > 0


def _biased(logits: Tensor, rows: Sequence[SamplingRow], num_tokens: int) -> Tensor:
    where = [
        (i, token, value)
        for i, row in enumerate(rows)
        for token, value in row.bias
        if token < num_tokens
    ]
    if where:
        row_ids, token_ids, values = zip(*where, strict=True)
        place = torch.tensor([row_ids, token_ids], device=logits.device)
        addends = torch.tensor(values, dtype=torch.float32, device=logits.device)
        logits[place[0], place[1]] += addends
    return logits


def _penalised(logits: Tensor, rows: Sequence[SamplingRow], num_tokens: int) -> Tensor:
    """One column of the arrays below for each token that a row has seen."""
    seen = [(i, row.penalties) for i, row in enumerate(rows) if row.penalties is not None]
    if not seen:
        return logits
    lengths = [len(penalties.ids) for _, penalties in seen]
    ids = np.concatenate([penalties.ids for _, penalties in seen])
    inside = ids < num_tokens

    def column(values: Sequence[float], dtype: type) -> Tensor:
        spread: np.ndarray = np.repeat(np.array(values, dtype), lengths)[inside]
        return torch.from_numpy(spread).to(logits.device)

    at = torch.from_numpy(ids[inside]).to(logits.device).long()
    row_ids = column([i for i, _ in seen], np.int64)
    counts = np.concatenate([penalties.counts for _, penalties in seen])[inside]
    count = torch.from_numpy(counts).to(logits.device).float()
    repetition = column([penalties.repetition for _, penalties in seen], np.float32)
    frequency = column([penalties.frequency for _, penalties in seen], np.float32)
    presence = column([penalties.presence for _, penalties in seen], np.float32)
    raw = logits[row_ids, at]
    raw = torch.where(raw > 0, raw / repetition, raw * repetition)
    raw = raw - count * frequency
    logits[row_ids, at] = torch.where(count > 0, raw - presence, raw)
    return logits


def _kept(raw: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """bool [R, n]: which ids stay; see ``model/sampling.py`` for the rules."""

    def column(values: list[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=raw.device)[:, None]

    count = raw.shape[1]
    temperature = column([row.temperature for row in rows], torch.float32)
    ranked, ids = (raw / temperature).sort(dim=1, descending=True, stable=True)
    top_k = column([row.top_k if row.top_k > 0 else count for row in rows], torch.int64)
    is_top = torch.arange(count, device=raw.device)[None, :] < top_k
    weights = (ranked - ranked[:, :1]).exp()
    whole = torch.where(is_top, (weights.double() * _ONE).round().long(), 0)
    sums = whole.cumsum(1)
    limit = column([row.top_p for row in rows], torch.float64) * sums[:, -1:].double()
    reaches = column([float(row.top_p >= 1) for row in rows], torch.bool)
    keep = is_top & (reaches | ((sums - whole).double() < limit))
    keep &= weights >= column([row.min_p for row in rows], torch.float32)
    keep[:, 0] = True
    return torch.zeros_like(keep).scatter(1, ids, keep)
