"""All tensors of packed weights in one piece of memory, which one copy brings elsewhere.

Tensors are found by walking through the weights' dataclasses, so that a new field of theirs has its
place without a word here. Where each lies follows from their shapes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pythia_bento.model.kernels.base import PackedWeights, Slab

ALIGNED = 256  # bytes: each tensor starts at a multiple, as the widest loads want it
TAG_BYTES = 32  # at the beginning


@torch.inference_mode()
def contiguous(weights: PackedWeights, tag: bytes) -> PackedWeights:
    """A copy of ``weights`` in a slab of its own; ``tag``, 32 bytes, says whose they are."""
    if len(tag) != TAG_BYTES:
        raise ValueError(f"a tag has {TAG_BYTES} bytes, not {len(tag)}")
    tensors = list(_tensors(weights))
    memory = torch.zeros(_size(tensors), dtype=torch.uint8, device=tensors[0].device)
    memory[:TAG_BYTES].copy_(torch.frombuffer(bytearray(tag), dtype=torch.uint8))
    copy = placed(weights, memory, tag)
    for source, target in zip(tensors, _tensors(copy), strict=True):
        target.copy_(source)
    return copy


@torch.inference_mode()
def placed(like: PackedWeights, memory: Tensor, tag: bytes) -> PackedWeights:
    """Weights of the shapes of ``like`` whose tensors are views of ``memory``, a slab's."""
    if (size := _size(list(_tensors(like)))) != len(memory):
        raise ValueError(f"weights of {size} bytes do not fit a slab of {len(memory)}")
    end = ALIGNED

    def view(tensor: Tensor) -> Tensor:
        nonlocal end
        start, end = end, end + _room(tensor)
        return memory[start : start + _bytes(tensor)].view(tensor.dtype).view(tensor.shape)

    weights: PackedWeights = _mapped(replace(like, slab=None), view)
    return replace(weights, slab=Slab(memory, tag, tuple(_scalars(weights))))


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


def _tensors(weights: PackedWeights) -> Iterator[Tensor]:
    return (leaf for leaf in _leaves(weights) if isinstance(leaf, Tensor))


def _scalars(weights: PackedWeights) -> Iterator[float]:
    return (leaf for leaf in _leaves(weights) if not isinstance(leaf, Tensor))


def _leaves(weights: PackedWeights) -> list[Any]:
    """Tensors and numbers, in the order of the fields."""
    found: list[Any] = []

    def note(leaf: Any) -> Any:
        found.append(leaf)
        return leaf

    _mapped(replace(weights, slab=None), note, note)
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
