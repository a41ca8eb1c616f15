"""What is made of rows that somebody wants to see."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.capture import Lens, LogitsTap, Placed, Tap
from pythia_bento.engine.tapped import Mean, Tapped
from pythia_bento.executor.changes import total
from pythia_bento.executor.input_batch import upload
from pythia_bento.executor.outlets import TYPES, Outlet
from pythia_bento.executor.spans import Span
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.base import SCORED_ROWS

FEW_ROWS = 64  # of logits at a time on a CPU
PRODUCTS = {"cpu": 2**18, "cuda": 2**26}  # numbers that are multiplied at a time


def target(region: Tensor, placed: Placed) -> Tensor:
    """Where a part goes, [rows, ...] in its type; ``region`` is uint8 on the host."""
    part = placed.part
    shape = (placed.rows, *part.row) if part.has_rows else part.row
    end = placed.offset + math.prod(shape) * TYPES[part.dtype].itemsize
    return region[placed.offset : end].view(TYPES[part.dtype]).view(shape)


@dataclass(frozen=True, slots=True)
class Reader:
    """A tap of one sequence, as a device holds it."""

    number: int  # of the tap
    tap: Tap
    targets: tuple[Tensor, ...]  # of its parts
    columns: Tensor | None  # int64, heads or neurons that are selected
    directions: Tensor | None  # fp32 [D, W]
    model: GPTNeoX

    @classmethod
    def of(cls, number: int, tap: Tap, targets: tuple[Tensor, ...], model: GPTNeoX) -> Reader:
        """Bring to the model's device what it needs."""
        device, reduction = model.kernels.device, tap.reduction
        chosen = tap.heads if tap.heads is not None else tap.neurons
        columns = None if chosen is None else upload(np.array(chosen), device)
        directions = getattr(reduction, "directions", None)
        if directions is not None:
            directions = upload(directions.copy(), device)
        return cls(number, tap, targets, columns, directions, model)

    def read(self, rows: Tensor, exponent: int, span: Span, outlet: Outlet, tapped: Tapped) -> None:
        """Some of the rows of a pass, [T, ...], whose values are ``rows * 2**exponent``."""
        found = rows[span.select(self.columns)]
        if isinstance(self.tap.reduction, Lens):
            self._look_through(self.tap.reduction, found, span, outlet)
            return
        values = found.float() if exponent == 0 else found.float() * 2.0**exponent
        if self.tap.reduction == "mean":
            self._average(values, span, outlet, tapped)
            return
        if self.tap.reduction == "norm":
            values = total(values * values).sqrt()
        elif self.directions is not None:
            values = products(values, self.directions)
        self._write(0, span, values, outlet, rows if self.tap.reduction is None else None)

    def read_pattern(
        self, weights: Tensor, begin: int, end: int, span: Span, outlet: Outlet
    ) -> None:
        """Rows number ``begin`` to ``end`` of a span: fp32 [end - begin, heads, K]."""
        part = self.targets[0][span.part(begin, end)]
        if self.columns is not None:
            weights = weights[:, self.columns]
        keys = min(weights.shape[-1], part.shape[-1])
        weights = weights[..., :keys]
        outlet.write(part[..., :keys], weights)
        part[..., keys:] = 0
        where, written = span.positions[begin:end], self._whole(part[..., :keys])
        outlet.check(span.chunk, self.tap.place.name, where, self.tap.dtype, weights, written)

    def _write(
        self, part: int, span: Span, values: Tensor, outlet: Outlet, among: Tensor | None
    ) -> None:
        written = self.targets[part][span.all]
        dtype = self.tap.dtype if self.tap.reduction is None else "float32"
        outlet.write(written, values)
        name = self.tap.place.name
        outlet.check(span.chunk, name, span.positions, dtype, values, self._whole(written), among)

    def _whole(self, written: Tensor) -> Tensor | None:
        """The same, where it has all that was to be written."""
        return written if written.dtype == torch.float32 else None

    def _average(self, values: Tensor, span: Span, outlet: Outlet, tapped: Tapped) -> None:
        mean = tapped.means.setdefault(self.number, Mean())

        def add(rows: Tensor) -> None:
            self.targets[0].copy_(torch.from_numpy(mean.add(span.first, rows.numpy())))

        outlet.put(values, add)
        outlet.check(span.chunk, self.tap.place.name, span.positions, "float32", values)

    def _look_through(self, lens: Lens, rows: Tensor, span: Span, outlet: Outlet) -> None:
        ids, best, given = (part[span.all] for part in self.targets)
        for piece, logits in _logits(self.model, rows):
            none = torch.zeros(len(logits), dtype=torch.int32, device=logits.device)
            if lens.top:
                found = self.model.logprobs(logits, none, lens.top)
                outlet.write(ids[piece], found.top_ids)
                outlet.write(best[piece], found.top)
            for column, token in enumerate(lens.tokens):
                value = self.model.logprobs(logits, none + token, 0).chosen
                outlet.write(given[piece, column], value)
        outlet.check(span.chunk, self.tap.place.name, span.positions, "float32", rows)


@dataclass(frozen=True, slots=True)
class LogitsReader:
    """The logits that one sequence wants to see."""

    tap: LogitsTap
    target: Tensor
    tokens: Tensor  # int64
    model: GPTNeoX

    def read(self, hidden: Tensor, span: Span, outlet: Outlet) -> None:
        """Of some rows of hidden states before the final norm."""
        part = self.target[span.all]
        for piece, logits in _logits(self.model, hidden[span.index]):
            values = logits[:, self.tokens]
            outlet.write(part[piece], values)
            where = span.positions[piece]
            outlet.check(span.chunk, "logits", where, "float32", values, part[piece])


def products(values: Tensor, directions: Tensor) -> Tensor:
    """Of each row with each direction: fp32 [..., W] and [D, W] -> [..., D].

    Each is a ``total`` of its own: its bits depend on its row and its direction alone.
    """
    rows = values.reshape(-1, 1, values.shape[-1])
    most = PRODUCTS.get(values.device.type, PRODUCTS["cpu"])
    step = max(most // max(rows.numel(), 1), 1)
    parts = [total(rows * directions[at : at + step]) for at in range(0, len(directions), step)]
    return torch.cat(parts, 1).view(*values.shape[:-1], -1)


def _logits(model: GPTNeoX, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Of [R, H], as many as there is room for at a time."""
    step = SCORED_ROWS if rows.is_cuda else FEW_ROWS
    for begin in range(0, len(rows), step):
        piece = slice(begin, begin + step)
        yield piece, model.logits(rows[piece].contiguous())


def region_of(arena: np.ndarray | None, begin: int, nbytes: int) -> Tensor:
    """Uint8 [nbytes] of the arena."""
    if arena is None or begin + nbytes > len(arena):
        raise RuntimeError("there is no such region for a capture")
    return torch.from_numpy(arena[begin : begin + nbytes])
