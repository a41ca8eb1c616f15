"""Requests that show or change the inside of a model, and what came of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pythia_bento.engine.capture import (
    Capture,
    Lens,
    LogitsTap,
    Placed,
    Positions,
    Project,
    Tap,
    capture_bytes,
    layout,
    num_rows,
)
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.interventions import Intervention, interventions
from pythia_bento.engine.outputs import SequenceOutput, num_inputs
from pythia_bento.engine.params import Request
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sites import SITES, Place

ALL = range(2**31)
Rows = dict[str, np.ndarray]
"""Raw bytes as numbers, by name; bfloat16 as uint16."""


def places(config: ModelConfig) -> list[Place]:
    """All there are."""
    layers = range(config.num_layers)
    return [Place(site, layer) for site in SITES for layer in (layers if site.is_in_layer else [0])]


def everything(config: ModelConfig, positions: Positions = ALL) -> Capture:
    """All places, and every way to make something of them."""
    taps = [Tap(place, positions) for place in places(config)]
    middle, rng = config.num_layers // 2, np.random.default_rng(5)
    for place in (p for p in places(config) if p.layer == middle):
        kind, options = place.site.kind, {}
        if kind in ("heads", "keys"):
            options["heads"] = (config.num_heads - 1, 0) if config.num_heads > 1 else (0,)
        if kind == "inner":
            options["neurons"] = (5, 1, 7)
        taps.append(Tap(place, positions, **options, dtype="bfloat16"))
        if kind == "keys":
            continue
        width = 3 if kind == "inner" else place.shape(config)[-1]
        directions = rng.standard_normal((3, width)).astype(np.float32)
        for reduction in ("mean", "norm", Project(directions)):
            taps.append(Tap(place, positions, **options, reduction=reduction))
        if kind == "hidden" and place.site.is_writable:
            taps.append(Tap(place, positions, reduction=Lens(3, (5, 200))))
    return Capture(tuple(taps), LogitsTap((1, 17, 250), positions))


def capturing(request: Request, capture: Capture | None) -> Request:
    return replace(request, capture=capture)


def changing(request: Request, *items: Intervention) -> Request:
    return replace(request, interventions=interventions(items))


class Capturing:
    """An engine with an arena, dirty as one that was used before."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        assert engine.limits.config is not None
        self.config = engine.limits.config

    def generate(self, requests: Sequence[Request]) -> list[tuple[list[SequenceOutput], Rows]]:
        """Continuations of each request, and what it captured."""
        placed, offset = [], 0
        for request in requests:
            if request.capture is not None:
                request = capturing(request, replace(request.capture, region=offset))
                offset += self._nbytes(request)
            placed.append(request)
        arena = np.full(offset, 0xA5, np.uint8)
        self.engine.lend(arena)
        answers = self.engine.generate(placed)
        return [(own, self._rows(r, own, arena)) for r, own in zip(placed, answers, strict=True)]

    def _nbytes(self, request: Request) -> int:
        assert request.capture is not None
        return capture_bytes(request.capture, self.config, request.most_inputs)

    def _rows(self, request: Request, own: list[SequenceOutput], arena: np.ndarray) -> Rows:
        if request.capture is None:
            return {}
        return rows_of(request, own[0], self.config, arena[request.capture.region :])


def rows_of(
    request: Request, output: SequenceOutput, config: ModelConfig, region: np.ndarray
) -> Rows:
    """What a region (uint8) has of a request that ended with ``output``."""
    assert request.capture is not None
    computed = num_inputs(request, output)
    found: Rows = {}
    groups, _ = layout(request.capture, config, request.most_inputs)
    for number, (name, positions, group) in enumerate(_named(request.capture, groups)):
        for placed in group:
            values = _values(placed, region)
            if placed.part.has_rows:
                values = values[: num_rows(positions, computed)]
            if name.endswith("pattern"):
                values = values[..., :computed]
            found[f"{number}:{name}{placed.part.suffix}"] = values
    return found


def _named(
    capture: Capture, groups: list[tuple[Placed, ...]]
) -> Iterator[tuple[str, Positions, tuple[Placed, ...]]]:
    for tap, group in zip(capture.taps, groups, strict=False):
        yield tap.place.name, tap.positions, group
    if capture.logits is not None:
        yield "", capture.logits.positions, groups[-1]


def _values(placed: Placed, region: np.ndarray) -> np.ndarray:
    part = placed.part
    shape = (placed.rows, *part.row) if part.has_rows else part.row
    dtype = "uint16" if part.dtype == "bfloat16" else part.dtype
    return np.frombuffer(region, dtype, math.prod(shape), placed.offset).reshape(shape)


def same(one: Rows, other: Rows) -> bool:
    """Whether they have the same names and bits."""
    assert one.keys() == other.keys()
    different = [name for name in one if not np.array_equal(bits(one[name]), bits(other[name]))]
    assert not different, different
    return True


def bits(values: np.ndarray) -> np.ndarray:
    """As integers: -0 is not 0."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
