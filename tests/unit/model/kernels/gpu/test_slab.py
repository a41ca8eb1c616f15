"""Weights in one piece of memory: nothing is left out, and a copy of it is the weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.slab import ALIGNED, Filling, contiguous, outline, placed
from pythia_bento.model.weights import Part
from tests.unit.model.kernels.gpu.packed import CONFIG, CPU, packed


def tensors(weights: PackedWeights) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by its name, found otherwise than the slab finds them."""
    yield "table", weights.table
    for number, part in enumerate([*weights.layers, weights.head]):
        for field in fields(part):
            if isinstance(value := getattr(part, field.name), Tensor):
                yield f"{number}.{field.name}", value


def tag(number: int) -> bytes:
    return bytes([number]) * 32


def test_all_tensors_are_views_of_one_piece_of_memory() -> None:
    weights, key = packed(1), bytes(range(32))
    copy = contiguous(weights, key)
    assert copy.slab is not None
    begin = copy.slab.memory.data_ptr()
    end, names = begin + ALIGNED, set()
    for (name, own), (_, of_copy) in zip(tensors(weights), tensors(copy), strict=True):
        assert torch.equal(own, of_copy) and own.dtype == of_copy.dtype
        assert own.data_ptr() != of_copy.data_ptr()
        assert (of_copy.data_ptr() - begin) % ALIGNED == 0
        assert of_copy.data_ptr() >= end and of_copy.is_contiguous()
        end = of_copy.data_ptr() + of_copy.nbytes
        names.add(name)
    assert end <= begin + copy.slab.memory.nbytes
    assert {"table", "0.w_in", "1.down_scale", "2.weight"} <= names
    assert bytes(copy.slab.memory[:32].numpy()) == copy.slab.tag == key


def test_a_slab_copied_over_another_brings_the_weights() -> None:
    first, second = contiguous(packed(1), tag(1)), contiguous(packed(2), tag(2))
    assert first.slab is not None and second.slab is not None
    with torch.inference_mode():
        second.slab.memory.copy_(first.slab.memory)
    for (_, one), (_, other) in zip(tensors(first), tensors(second), strict=True):
        assert torch.equal(one, other)
    again = contiguous(packed(1), tag(1))
    assert again.slab is not None
    assert torch.equal(again.slab.memory, first.slab.memory)  # what is between tensors too


def test_an_outline_has_no_memory_and_says_where_everything_is() -> None:
    weights = contiguous(packed(1), tag(1))
    assert weights.slab is not None
    shape = outline(weights)
    assert all(tensor.is_meta for _, tensor in tensors(shape))
    back = placed(shape, weights.slab.memory.clone(), tag(1))
    for (_, one), (_, other) in zip(tensors(weights), tensors(back), strict=True):
        assert torch.equal(one, other)
    assert back.slab is not None
    assert back.slab.scalars == weights.slab.scalars


def test_scalars_are_those_of_all_layers_and_the_head() -> None:
    weights = packed(1)
    assert contiguous(weights, tag(1)).slab.scalars == (1.0,) * (2 * CONFIG.num_layers + 1)  # type: ignore[union-attr]
    loud = replace(weights.layers[1], gelu_scale=0.25, qk_scale=16.0)
    layers, head = [weights.layers[0], loud], replace(weights.head, scale=2.0)
    scaled = contiguous(replace(weights, layers=layers, head=head), tag(1))
    assert scaled.slab is not None
    assert scaled.slab.scalars == (1.0, 1.0, 0.25, 16.0, 2.0)


def test_a_new_field_has_its_place_by_itself() -> None:
    @dataclass(frozen=True)
    class Head:
        weight: Tensor
        parts: list[Tensor]
        nothing: None = None

    head = Head(torch.ones(3), [torch.zeros(2, dtype=torch.int16), torch.full((5,), 7.0)])
    copy = contiguous(PackedWeights(torch.ones(1), [], head), tag(3))
    assert copy.slab is not None
    assert len(copy.slab.memory) == 5 * ALIGNED
    assert copy.head.parts[1].tolist() == [7.0] * 5
    with pytest.raises(TypeError, match="no place for dict"):
        contiguous(PackedWeights(torch.ones(1), [], {"weight": torch.ones(1)}), tag(3))


def test_what_does_not_fit_is_refused() -> None:
    weights = contiguous(packed(1), tag(1))
    assert weights.slab is not None
    with pytest.raises(ValueError, match="do not fit a slab"):
        placed(weights, weights.slab.memory[:-ALIGNED], tag(1))
    with pytest.raises(ValueError, match="32 bytes, not 3"):
        contiguous(packed(1), b"abc")


def parts_of(weights: PackedWeights) -> dict[Part, Any]:
    return {
        "head": weights.head,
        **dict(enumerate(weights.layers)),
        "embedding": weights.table,
    }


def test_a_slab_that_is_filled_part_by_part_is_the_same() -> None:
    weights, shape = packed(1), outline(contiguous(packed(2), tag(2)))
    weights = replace(weights, head=replace(weights.head, scale=2.0))
    filling = Filling(shape, tag(1), CPU)
    placed = {part: filling.place(part, own) for part, own in parts_of(weights).items()}
    layers = [placed[index] for index in range(CONFIG.num_layers)]
    found = filling.whole(PackedWeights(placed["embedding"], layers, placed["head"]))
    wanted = contiguous(weights, tag(1))
    assert found.slab is not None and wanted.slab is not None
    assert torch.equal(found.slab.memory, wanted.slab.memory)
    assert (found.slab.tag, found.slab.scalars) == (wanted.slab.tag, wanted.slab.scalars)
    begin, end = found.slab.memory.data_ptr(), found.slab.memory.nbytes
    for (_, one), (_, other) in zip(tensors(found), tensors(wanted), strict=True):
        assert torch.equal(one, other)
        assert begin < one.data_ptr() < begin + end  # nothing lies beside it


def test_a_slab_takes_no_part_of_another_model() -> None:
    filling = Filling(outline(packed(1)), tag(1), CPU)
    other = packed(1, replace(CONFIG, hidden_size=128, intermediate_size=512))
    for part, own in parts_of(other).items():
        with pytest.raises(ValueError, match="is of another model than the slab is"):
            filling.place(part, own)
