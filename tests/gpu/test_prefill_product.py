"""The wgmma kernels for many tokens against Triton's: not a bit may differ."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.gpu.test_triton import RandomWeights, on_gpu

TOKENS = (257, 300, 1000)


pytestmark = pytest.mark.needs("sm_90")


def same(found: Tensor, wanted: Tensor) -> bool:
    kind = torch.int16 if found.dtype == torch.float16 else torch.int32
    return torch.equal(found.view(kind), wanted.view(kind))


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("head_dim, heads", [(32, 4), (64, 8), (64, 12), (80, 32), (256, 8)])
def test_bits_are_those_of_triton(head_dim: int, heads: int, tokens: int) -> None:
    from pythia_bento.model.kernels.gpu import tiles
    from pythia_bento.model.kernels.gpu.cuda.prefill_constants import TILES

    model = on_gpu(RandomWeights(head_dim, heads=heads))
    config, launch, layer = model.config, model.kernels.launch, model.weights.layers[0]
    products = launch.wide_products
    assert products is not None
    hidden, inner = config.hidden_size, config.intermediate_size
    half = {"dtype": torch.float16, "device": "cuda"}
    torch.manual_seed(tokens)
    h, attended = torch.randn(2, tokens, hidden, **half), torch.randn(tokens, hidden, **half)
    x = torch.randn(tokens, hidden, device="cuda")
    scratch = torch.empty(12 * hidden * hidden, **half)
    found = []
    for wide in (tiles.WIDE_IN, tiles.WIDE_OUT), (None, None):
        qkv = torch.full((tokens, 3 * hidden), torch.nan, **half)
        up = torch.full((tokens, inner), torch.nan, **half)
        added = x.clone()
        launch.prefill_in(layer, h, qkv, up, scratch, wide[0])
        launch.prefill_out(layer, attended, up, added, scratch, wide[1])
        found.append((qkv, up, added))
    assert all(same(ours, theirs) for ours, theirs in zip(found[1], found[0], strict=True))
    assert torch.isfinite(found[0][2]).all()
    for name, widths in TILES.items():
        assert products.width(name, tokens) in widths


@pytest.mark.parametrize("cluster", [1, 2])
@pytest.mark.parametrize("width", [64, 128, 184, 192])
def test_tiles_and_clusters_do_not_change_bits(width: int, cluster: int) -> None:
    from pythia_bento.model.kernels.gpu import tiles
    from pythia_bento.model.kernels.gpu.prefill_product import PrefillProducts

    model = on_gpu(RandomWeights(64, heads=8))
    launch, layer = model.kernels.launch, model.weights.layers[0]
    half = {"dtype": torch.float16, "device": "cuda"}
    torch.manual_seed(width)
    attended, up = torch.randn(777, 512, **half), torch.randn(777, 2048, **half)
    x = torch.randn(777, 512, device="cuda")
    scratch = torch.empty(12 * 512 * 512, **half)
    found = []
    for tile in tiles.WIDE_OUT, None:
        launch.wide_products = PrefillProducts(
            model.config, torch.device("cuda"), tiles={"prefill_out": {width: cluster}}
        )
        found.append(x.clone())
        launch.prefill_out(layer, attended, up, found[-1], scratch, tile)
    assert same(*found)
    assert not same(found[0], x)
