"""What a request changes inside its passes: data, never code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pythia_bento.engine.capture import Positions
from pythia_bento.model.sites import Place

Op = Literal["add", "set", "scale", "zero", "project_out", "clamp"]


@dataclass(frozen=True, slots=True, eq=False)
class Intervention:
    """One change of the rows at a place, in fp32, each step of it rounded by itself.

    With x a row, or what ``heads`` and ``neurons`` select of it: ``add`` is x + scale * v, ``set``
    v, ``scale`` scale * x, ``zero`` 0, ``project_out`` x - scale * (x . d) d, ``clamp``
    x + (min(max(x . d, low), high) - x . d) d. d is v divided by its length.
    """

    place: Place
    op: Op
    positions: Positions
    heads: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    values: np.ndarray | None = None
    """fp32 [W], or [len(positions), W] with a row for each position; W is the size of what is
    selected of a row. None where the operation needs none."""
    scale: float = 1.0
    low: float = 0.0
    high: float = 0.0

    def words(self) -> bytes:
        """All of it as bytes, the same for equal interventions alone."""
        positions = self.positions
        if isinstance(positions, range):
            where = f"{positions.start}:{positions.stop}:{positions.step}"
        else:
            where = ",".join(map(str, positions))
        fields = (self.place.name, self.op, where, self.heads, self.neurons)
        numbers = np.array([self.scale, self.low, self.high], dtype="<f4")
        shape, data = (), b""
        if self.values is not None:
            values = np.ascontiguousarray(self.values, dtype="<f4")
            shape, data = values.shape, values.tobytes()
        head = repr((*fields, numbers.tobytes(), shape)).encode()
        return len(head).to_bytes(8, "little") + head + data


@dataclass(frozen=True, slots=True, eq=False)
class Interventions:
    """What a request changes, in the order in which it is done at each place."""

    items: tuple[Intervention, ...]
    digest: bytes
    """SHA-256 of all of it: part of the names of KV blocks and of the answer's fingerprint."""

    @property
    def first(self) -> int:
        """The first position that is changed: what is before it may be shared with others."""
        return min(item.positions[0] for item in self.items)


def interventions(items: Sequence[Intervention]) -> Interventions | None:
    """Those that change something: None where none does.

    Adding nothing and multiplying by 1 are left out: x + 0 would make 0 of -0.
    """
    kept = tuple(item for item in items if not _is_nothing(item))
    if not kept:
        return None
    digest = hashlib.sha256()
    for item in kept:
        digest.update(item.words())
    return Interventions(kept, digest.digest())


def _is_nothing(item: Intervention) -> bool:
    if not len(item.positions):
        return True
    if item.op in ("add", "project_out"):
        return item.scale == 0
    return item.op == "scale" and item.scale == 1
