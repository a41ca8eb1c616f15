"""Sampling rows as arrays: what the GPU's kernels read, on CPU tensors."""

from __future__ import annotations

import numpy as np
import torch

from pythia_bento.model.kernels.gpu.row_options import has_options, row_options
from pythia_bento.model.sampling_row import Penalties, SamplingRow

CPU = torch.device("cpu")


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_rows_of_temperature_alone_need_none() -> None:
    assert row_options([SamplingRow(0), SamplingRow(3, temperature=0.0, seed=5)], CPU) is None


def test_each_option_makes_a_row_active() -> None:
    penalties = Penalties(1.0, 0.0, 0.0, ints(), ints())
    for asked in (
        {"top_k": 1},
        {"top_p": 0.5},
        {"min_p": 0.1},
        {"bias": ((3, 0.0),)},
        {"penalties": penalties},
    ):
        assert has_options(SamplingRow(0, **asked))  # type: ignore[arg-type]


def test_rows_keep_their_places_and_lists_their_spans() -> None:
    penalties = Penalties(1.5, 0.25, -0.5, ints(7, 3), ints(0, 2))
    rows = [
        SamplingRow(0, top_k=4, top_p=0.25, min_p=0.5, bias=((3, 1.5), (9, -np.inf))),
        SamplingRow(1),
        SamplingRow(2, bias=((5, 2.0),), penalties=penalties),
    ]
    found = row_options(rows, CPU)
    assert found is not None
    assert found.active.tolist() == [1, 0, 1]
    assert (found.top_k.tolist(), found.top_p.tolist()) == ([4, 0, 0], [0.25, 1.0, 1.0])
    assert found.min_p.tolist() == [0.5, 0.0, 0.0]
    assert found.bias_starts.tolist() == [0, 2, 2, 3]
    assert found.bias_ids.tolist() == [3, 9, 5]
    assert found.biases.tolist() == [[1.5, -np.inf, 2.0]] * 2
    assert found.penalties.tolist() == [[1.0, 1.0, 1.5], [0.0, 0.0, 0.25], [0.0, 0.0, -0.5]]
    assert found.prompt_lens.tolist() == [-1, -1, 0]
    assert found.num_seen.tolist() == [0, 0, 2]
    assert found.seen[:2, 2].tolist() == [[7, 3], [0, 2]]
    assert not found.seen[2].any()  # nothing follows an entry: they are distinct
