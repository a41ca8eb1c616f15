"""Copies in pieces are copies, and a piece is not filled again before it was sent."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pythia_bento.model.kernels.gpu import uploads
from pythia_bento.model.kernels.gpu.uploads import Uploads
from tests.unit.model.kernels.gpu.packed import CPU


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


def test_each_piece_waits_for_its_bytes() -> None:
    source, there = torch.zeros(40, dtype=torch.int16), []

    def until(count: int) -> None:
        there.append(count)
        source.view(torch.uint8)[:count] = 7

    assert Uploads(CPU, 32).upload(source, until).view(torch.uint8).eq(7).all()
    assert there == [32, 64, 80]
