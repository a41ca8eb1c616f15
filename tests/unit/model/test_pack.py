"""Packing part by part: in the order of the source, and with nothing kept of a part."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from bench.common.random_model import RandomModel
from pythia_bento.model.kernels import create
from pythia_bento.model.pack import pack
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights, Part
from tests.unit.model.kernels.gpu.packed import CONFIG, CPU


class Source(RandomModel):
    """In an order of its own; it knows which of the tensors it gave are in use."""

    def __init__(self, order: list[Part]) -> None:
        super().__init__(CONFIG, CPU)
        self._order, self.asked = order, list[Part]()
        self.given: list[weakref.ref[torch.Tensor]] = []

    def order(self) -> list[Part]:
        return self._order

    def embedding(self) -> torch.Tensor:
        self._note("embedding")
        found = super().embedding()
        self.given.append(weakref.ref(found))
        return found

    def layer(self, index: int) -> LayerWeights:
        self._note(index)
        found = super().layer(index)
        for linear in (found.qkv, found.dense, found.up, found.down):
            assert isinstance(linear, Int8Linear)
            self.given.append(weakref.ref(linear.weight))
        return found

    def head(self) -> HeadWeights:
        self._note("head")
        found = super().head()
        self.given.append(weakref.ref(found.weight))
        return found

    def _note(self, part: Part) -> None:
        gc.collect()
        assert not any(one() is not None for one in self.given)
        self.asked.append(part)


ORDERS: list[list[Part]] = [["embedding", "head", 0, 1], [1, "head", 0, "embedding"]]


@pytest.mark.parametrize("order", ORDERS)
def test_parts_are_packed_in_the_order_of_the_source(order: list[Part]) -> None:
    source, told = Source(order), list[tuple[int, int]]()
    kernels = create("reference", CONFIG, CPU)
    found = pack(source, kernels, lambda *step: told.append(step))
    assert source.asked == order
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    wanted, inputs = (
        pack(RandomModel(CONFIG, CPU), kernels),
        torch.randn(3, CONFIG.intermediate_size),
    )
    assert torch.equal(found.table, wanted.table)
    for one, other in zip(found.layers, wanted.layers, strict=True):
        assert torch.equal(one.down(inputs), other.down(inputs))


def test_what_was_placed_is_not_kept_beside_its_place() -> None:
    """So that beside a slab there is one part at a time."""
    packed: list[weakref.ref[Any]] = []

    class Packed:
        pass

    class Kernels:
        def load_layer(self, layer: LayerWeights) -> Packed:
            assert not any(one() is not None for one in packed)
            packed.append(weakref.ref(found := Packed()))
            return found

        def load_embedding(self, weight: torch.Tensor) -> Packed:
            return self.load_layer(weight)  # type: ignore[arg-type]

        load_head = load_layer

    kernels: Any = Kernels()
    found = pack(RandomModel(CONFIG, CPU), kernels, place=lambda part, one: f"place of {part}")
    assert found.table == "place of embedding" and found.head == "place of head"
    assert found.layers == ["place of 0", "place of 1"]
    assert len(packed) == CONFIG.num_layers + 2
