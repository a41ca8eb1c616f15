"""Copies in pieces are copies, and a piece is not filled again before it was sent."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.common.random_model import RandomModel
from pythia_bento.model.kernels.gpu import uploads
from pythia_bento.model.kernels.gpu.packing import pack_layer
from pythia_bento.model.kernels.gpu.uploads import Uploaded, Uploads
from tests.unit.model.kernels.gpu.packed import CONFIG, CPU


@pytest.mark.parametrize("piece", [64, 100, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (33, 7), (64, 128)])
def test_what_arrives_is_what_was_sent(
    piece: int, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    made = Uploads(CPU, piece)
    for seed in range(2):
        torch.manual_seed(seed)
        source = (100 * torch.randn(shape)).to(dtype)
        found = made.upload(source)
        assert torch.equal(found, source) and found.dtype == dtype
        if source.numel():
            assert found.data_ptr() != source.data_ptr()


def test_a_matrix_that_does_not_lie_in_order_arrives_too() -> None:
    source = torch.arange(60).to(torch.int8).view(10, 6).t()
    assert torch.equal(Uploads(CPU, 7).upload(source), source)


def test_a_piece_is_filled_again_when_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []

    class Event:
        def __init__(self, blocking: bool) -> None:
            self.number = len(told)

        def record(self) -> None:
            told.append(("sent", self.number))

        def synchronize(self) -> None:
            told.append(("waited for", self.number))

    monkeypatch.setattr(uploads.torch.cuda, "Event", Event)
    made: Any = Uploads(CPU, 10)
    made._is_cuda = True
    made.upload(torch.zeros(40, dtype=torch.int8))
    pieces = [("sent", 0), ("sent", 1), ("waited for", 0), ("sent", 3), ("waited for", 1)]
    assert told == [*pieces, ("sent", 5)]


def test_layers_are_packed_as_if_they_had_stayed() -> None:
    source = RandomModel(CONFIG, CPU)
    uploaded = Uploaded(source, Uploads(CPU, 1000))
    assert list(uploaded.order()) == source.order() and uploaded.config == CONFIG
    assert torch.equal(uploaded.embedding(), source.embedding())
    assert torch.equal(uploaded.head().weight, source.head().weight)
    one, other = pack_layer(uploaded.layer(1), CPU), pack_layer(source.layer(1), CPU)
    for name in ("norms", "w_in", "in_scale", "in_bias", "dense", "down", "out_bias"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
