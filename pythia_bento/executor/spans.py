"""Which rows of a pass somebody asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.capture import Positions, within
from pythia_bento.executor.input_batch import upload


@dataclass(frozen=True, slots=True)
class Span:
    """Some positions of a chunk."""

    chunk: int
    positions: Sequence[int]
    first: int  # number of the first of them among all that were asked for
    rows: np.ndarray  # int64, their rows in the pass
    index: slice | Tensor  # the same, as a device takes them

    def select(self, columns: Tensor | None) -> Any:
        """An index of these rows, and of ``columns`` (int64) of each where there are some."""
        if columns is None:
            return (self.index,)
        rows = self.index if isinstance(self.index, slice) else self.index[:, None]
        return rows, columns

    def part(self, begin: int, end: int) -> slice:
        """Rows from number ``begin`` to ``end`` of these, among all that were asked for."""
        return slice(self.first + begin, self.first + end)

    @property
    def all(self) -> slice:
        """See ``part``."""
        return self.part(0, len(self.positions))


def span_of(
    positions: Positions, chunk: int, begin: int, end: int, offset: int, device: torch.device
) -> Span | None:
    """Those from ``begin`` on and before ``end``, where position p is row p + ``offset``.

    None where there are none.
    """
    first, found = within(positions, begin, end)
    if not len(found):
        return None
    rows = np.asarray(found, dtype=np.int64) + offset
    return Span(chunk, found, first, rows, index_of(rows, device))


def index_of(rows: np.ndarray, device: torch.device) -> slice | Tensor:
    """Rising row numbers, at least one, as a device takes them: without a copy where it can be."""
    if len(rows) == 1 + rows[-1] - rows[0]:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return upload(rows, device)
