"""Weights that stay widened give what those give that are widened for each pass."""

from __future__ import annotations

import pytest
import torch

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.gpt_neox import GPTNeoX
from tests.gpu.test_triton import RandomWeights, on_gpu

TOKENS = 700


def hidden(model: GPTNeoX) -> torch.Tensor:
    """Of a prompt, fp32 [TOKENS, H]."""
    size = model.kernels.block_size
    blocks = -(-TOKENS // size)
    at = torch.arange(TOKENS, dtype=torch.int32, device="cuda")
    ends = torch.tensor([0, TOKENS], dtype=torch.int32, device="cuda")
    tables = torch.arange(blocks, dtype=torch.int32, device="cuda")[None]
    batch = ForwardBatch((at * 11) % 300, at, at, ends, ends[1:].clone(), tables)
    return model.forward(batch, model.kernels.allocate_cache(blocks)).clone()


@pytest.mark.parametrize("head_dim", [64, 80])
def test_kept_weights_change_no_bit(head_dim: int) -> None:
    from pythia_bento.model.kernels.gpu.forward import Forward
    from pythia_bento.model.kernels.gpu.kernels import TritonKernels

    model = on_gpu(RandomWeights(head_dim))
    kernels = model.kernels
    assert isinstance(kernels, TritonKernels) and kernels.kept_bytes > 0
    kept, again = hidden(model), hidden(model)
    kernels._forward = Forward(kernels.launch, keeps_wide=False)
    assert torch.equal(kept, again) and torch.equal(kept, hidden(model))
