"""The persistent decode kernel against the four kernels a layer: not a bit may differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.gpu.test_triton import VOCAB, RandomWeights, on_gpu

CONTEXTS = ([192] * 8, [1, 2, 31, 32, 33, 64, 65, 511], [0, 300, 63, 0, 512, 5, 0, 257])


def prepare(decode: Any, batch: int, contexts: list[int]) -> None:
    """Rows of some context, their blocks interleaved; nothing from an earlier step is left."""
    decode.buffers.clear()
    rows = decode.buffers.rows
    rows.context_lens[:batch] = torch.tensor(contexts[:batch], dtype=torch.int32)
    rows.token_ids[:batch] = torch.arange(batch, dtype=torch.int32) * 37 % VOCAB
    width = rows.block_tables.shape[1]
    for row in range(batch):
        rows.block_tables[row] = torch.arange(width, dtype=torch.int32) * 8 + row
    decode.steps.workspace.fill(torch.nan)
    decode.steps.workspace.first(batch).attended.fill_(0)


@pytest.mark.parametrize("contexts", CONTEXTS)
@pytest.mark.parametrize("head_dim, heads", [(32, 4), (64, 12), (80, 32), (128, 16), (256, 8)])
def test_one_kernel_has_the_bits_of_many(head_dim: int, heads: int, contexts: list[int]) -> None:
    from pythia_bento.executor.graphs.active import ActiveWeights
    from pythia_bento.executor.graphs.decode import CapturedDecode

    model = on_gpu(RandomWeights(head_dim, heads=heads))
    width = -(-model.config.max_positions // model.kernels.block_size)
    cache = model.kernels.allocate_cache(8 * width)
    with torch.inference_mode():
        decode = CapturedDecode(model.kernels, ActiveWeights(model), cache, VOCAB, 8)
        steps = decode.steps
        assert steps.persistent is not None
        assert steps.persistent.batches
        for part in (cache.keys, cache.values):
            part.normal_()
        before = cache.keys.clone(), cache.values.clone()
        for batch in steps.persistent.batches:
            found = []
            for whole in (True, False):
                cache.keys.copy_(before[0])
                cache.values.copy_(before[1])
                prepare(decode, batch, contexts)
                if whole:
                    steps.launch_whole(steps.persistent, batch)
                else:
                    steps.launch_by_layer(batch)
                live = [row for row in range(batch) if contexts[row]]
                hidden = steps.workspace.first(batch).h[0][live].clone()
                found.append((hidden, cache.keys.clone(), cache.values.clone()))
            assert torch.isfinite(found[0][0]).all()
            assert all(torch.equal(one, many) for one, many in zip(*found, strict=True))
