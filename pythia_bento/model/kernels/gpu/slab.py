"""All tensors of packed weights in one piece of memory, which one copy brings elsewhere.

Tensors are found by walking through the weights' dataclasses, so that a new field of theirs has its
place without a word here. Where each lies follows from their shapes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pythia_bento.model.kernels.base import PackedWeights, Slab
from pythia_bento.model.weights import Part

ALIGNED = 256  # bytes: each tensor starts at a multiple, as the widest loads want it
TAG_BYTES = 32  # at the beginning


@torch.inference_mode()
def contiguous(weights: PackedWeights, tag: bytes) -> PackedWeights:
    """A copy of ``weights`` in a slab of its own; ``tag``, 32 bytes, says whose they are."""
    tensors = _tensors(weights)
    memory = torch.zeros(_size(tensors), dtype=torch.uint8, device=tensors[0].device)
    _mark(memory, tag)
    copy = placed(weights, memory, tag)
    for source, target in zip(tensors, _tensors(copy), strict=True):
        target.copy_(source)
    return copy


@torch.inference_mode()
def placed(like: PackedWeights, memory: Tensor, tag: bytes) -> PackedWeights:
    """Weights of the shapes of ``like`` whose tensors are views of ``memory``, a slab's."""
    if (size := _size(_tensors(like))) != len(memory):
        raise ValueError(f"weights of {size} bytes do not fit a slab of {len(memory)}")
    end = ALIGNED

    def view(tensor: Tensor) -> Tensor:
        nonlocal end
        start, end = end, end + _room(tensor)
        return memory[start : start + _bytes(tensor)].view(tensor.dtype).view(tensor.shape)

    weights: PackedWeights = _mapped(replace(like, slab=None), view)
    return replace(weights, slab=Slab(memory, tag, tuple(_scalars(weights))))


class Filling:
    """A slab that weights are put into part by part, so that none of them lies there twice."""

    @torch.inference_mode()
    def __init__(self, shape: PackedWeights, tag: bytes, device: torch.device) -> None:
        """``shape`` is an ``outline`` of such weights, ``tag`` says whose these are."""
        self._tag = tag
        self.memory = torch.zeros(_size(_tensors(shape)), dtype=torch.uint8, device=device)
        _mark(self.memory, tag)
        self._places = placed(shape, self.memory, tag)

    @torch.inference_mode()
    def place(self, part: Part, packed: Any) -> Any:
        """The part as views of the slab, which it was copied to."""
        views = _tensors(self._place_of(part))
        for source, target in zip(_tensors(packed), views, strict=True):
            if (source.shape, source.dtype) != (target.shape, target.dtype):
                raise ValueError(f"{part} of {source.shape} is of another model than the slab is")
            target.copy_(source)
        left = iter(views)
        return _mapped(packed, lambda tensor: next(left))

    def _place_of(self, part: Part) -> Any:
        if part == "embedding":
            return self._places.table
        return self._places.head if part == "head" else self._places.layers[part]

    def whole(self, weights: PackedWeights) -> PackedWeights:
        """Weights all of whose parts were placed."""
        return replace(weights, slab=Slab(self.memory, self._tag, tuple(_scalars(weights))))


def outline(weights: PackedWeights) -> PackedWeights:
    """What ``placed`` needs of weights, without their memory."""
    found: PackedWeights = _mapped(replace(weights, slab=None), lambda tensor: tensor.to("meta"))
    return found


def _size(tensors: list[Tensor]) -> int:
    return ALIGNED + sum(map(_room, tensors))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _room(tensor: Tensor) -> int:
    return -(-_bytes(tensor) // ALIGNED) * ALIGNED


def _mark(memory: Tensor, tag: bytes) -> None:
    if len(tag) != TAG_BYTES:
        raise ValueError(f"a tag has {TAG_BYTES} bytes, not {len(tag)}")
    memory[:TAG_BYTES].copy_(torch.frombuffer(bytearray(tag), dtype=torch.uint8))


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in _leaves(value) if isinstance(leaf, Tensor)]


def _scalars(value: Any) -> list[float]:
    return [leaf for leaf in _leaves(value) if not isinstance(leaf, Tensor)]


def _leaves(value: Any) -> list[Any]:
    """Tensors and numbers of weights or a part of them, in the order of the fields."""
    found: list[Any] = []

    def note(leaf: Any) -> Any:
        found.append(leaf)
        return leaf

    _mapped(replace(value, slab=None) if isinstance(value, PackedWeights) else value, note, note)
    return found


def _mapped(
    value: Any, change: Callable[[Tensor], Tensor], number: Callable[[Any], Any] = lambda it: it
) -> Any:
    """``value`` with each tensor changed, through dataclasses and lists; nothing else is there."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (int, float)):
        return number(value)
    if value is None:
        return None
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _mapped(getattr(value, f.name), change, number) for f in fields(value)}
        return replace(value, **parts)
    if isinstance(value, (list, tuple)):
        return [_mapped(part, change, number) for part in value]
    raise TypeError(f"a slab has no place for {type(value).__name__}")
