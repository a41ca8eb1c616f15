"""Rooms of activations: views at the start of shared buffers, each of them contiguous."""

from __future__ import annotations

import pytest
import torch

from pythia_bento import catalog
from pythia_bento.model.kernels.gpu.tiles import WIDE_FROM
from pythia_bento.model.kernels.gpu.workspace import AttentionScratch, Workspace

CONFIG = catalog.config("pythia-14m")
CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1, 7, 40])
def test_every_part_is_contiguous_and_starts_its_buffer(count: int) -> None:
    workspace = Workspace(CONFIG, 40, CPU)
    whole, part = workspace.first(40), workspace.first(count)
    assert part.x.shape == part.attended.shape == (count, 128)
    assert part.h.shape == (2, count, 128)
    assert (part.qkv.shape, part.up.shape) == ((count, 384), (count, 512))
    assert part.parts.shape == (5, count, 128)
    for mine, all_of_it in zip(part, whole, strict=True):
        assert mine.is_contiguous()
        assert mine.data_ptr() == all_of_it.data_ptr()
    assert (part.x.dtype, part.parts.dtype, part.h.dtype) == (
        torch.float32,
        torch.float32,
        torch.float16,
    )


def test_passes_that_widen_weights_have_no_pieces() -> None:
    workspace = Workspace(CONFIG, WIDE_FROM + 10, CPU)
    assert workspace.first(WIDE_FROM).parts.shape == (5, 0, 128)
    assert workspace.first(WIDE_FROM - 1).parts.shape == (5, WIDE_FROM - 1, 128)
    assert workspace.first(WIDE_FROM + 10).x.shape == (WIDE_FROM + 10, 128)


def test_filling_reaches_everything() -> None:
    workspace = Workspace(CONFIG, 3, CPU)
    workspace.fill(2)
    assert all(bool((part == 2).all()) for part in workspace.first(3))


def test_scratch_has_room_for_the_longest_context() -> None:
    scratch = AttentionScratch(CONFIG, 2, CPU)
    assert scratch.max_tiles == 2048 // 64
    assert scratch.acc.shape == (2, 4, 32, 32)
    assert not scratch.tickets.any()
