"""From a source to a backend's packed weights, part by part as they can be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pythia_bento.model.kernels.base import Kernels, PackedWeights
from pythia_bento.model.weights import Part, WeightSource

Progress = Callable[[int, int], None]  # (done, total) parts
Place = Callable[[Part, Any], Any]
"""Where a packed part stays: what it returns has the place of what it is given."""


def pack(
    source: WeightSource,
    kernels: Kernels,
    on_progress: Progress | None = None,
    place: Place | None = None,
) -> PackedWeights:
    """All weights; ``on_progress`` is called after each part, with which nothing is kept of it."""
    config = source.config
    found: dict[Part, Any] = {}
    for part in source.order():
        packed = _packed(source, kernels, part)
        found[part] = place(part, packed) if place else packed
        del packed
        if on_progress:
            on_progress(len(found), config.num_layers + 2)
    layers = [found[index] for index in range(config.num_layers)]
    return PackedWeights(found["embedding"], layers, found["head"])


def _packed(source: WeightSource, kernels: Kernels, part: Part) -> Any:
    if part == "embedding":
        return kernels.load_embedding(source.embedding())
    if part == "head":
        return kernels.load_head(source.head())
    return kernels.load_layer(source.layer(part))
