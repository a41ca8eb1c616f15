"""How tokens are chosen, as ``src/sampling.h`` reads it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pythia_bento.model.sampling_row import Penalties, SamplingRow


def fill_choice(choice: Any, row: SamplingRow) -> tuple[Any, ...]:
    """Copy a SamplingRow into its C struct; returns the arrays that it points to."""
    choice["temperature"], choice["top_k"] = row.temperature, row.top_k
    choice["top_p"], choice["min_p"] = row.top_p, row.min_p
    choice["position"], choice["seed"] = row.position, row.seed % (1 << 64)
    return (*_fill_bias(choice, row.bias), *_fill_penalties(choice, row.penalties))


def _fill_bias(choice: Any, bias: tuple[tuple[int, float], ...]) -> tuple[Any, ...]:
    if not bias:
        return ()
    ids = np.array([token for token, _ in bias], np.int32)
    values = np.array([value for _, value in bias], np.float32)
    choice["biases"], choice["bias_ids"] = len(ids), ids.ctypes.data
    choice["bias_values"] = values.ctypes.data
    return ids, values


def _fill_penalties(choice: Any, penalties: Penalties | None) -> tuple[Any, ...]:
    if penalties is None:
        return ()
    choice["repetition"], choice["frequency"] = penalties.repetition, penalties.frequency
    choice["presence"], choice["seen"] = penalties.presence, len(penalties.ids)
    choice["seen_ids"] = penalties.ids.ctypes.data
    choice["seen_counts"] = penalties.counts.ctypes.data
    return penalties.ids, penalties.counts
