"""Changes of rows inside a pass: each in fp32, step by step, whatever rows are beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.interventions import Intervention
from pythia_bento.executor.input_batch import upload
from pythia_bento.executor.spans import Span


@dataclass(frozen=True, slots=True)
class Change:
    """An intervention as a device holds it."""

    item: Intervention
    values: Tensor | None
    """fp32 [W], or [P, W] with a row for each position: what is added, what is set, or directions
    of length 1."""
    heads: Tensor | None  # int64
    neurons: Tensor | None  # int64

    @classmethod
    def of(cls, item: Intervention, device: torch.device) -> Change:
        """Bring to the device what it needs."""
        return cls(
            item,
            _values(item, device),
            None if item.heads is None else upload(np.array(item.heads), device),
            None if item.neurons is None else upload(np.array(item.neurons), device),
        )

    def apply(self, rows: Tensor, span: Span, exponent: int) -> None:
        """Change the rows of a span of its positions, of [T, ...], where they are.

        The values of ``rows`` are ``rows * 2**exponent``.
        """
        where = span.select(self.heads if self.heads is not None else self.neurons)
        old = rows[where]
        x = old.flatten(1).float() * 2.0**exponent
        values = self.values
        if values is not None and values.dim() == 2:
            values = values[span.first : span.first + len(span.positions)]
        new = _changed(self.item, x, values)
        rows[where] = (new * 2.0**-exponent).to(rows.dtype).view(old.shape)


def total(x: Tensor) -> Tensor:
    """Sums over the last dimension, fp32 [..., W] -> [...].

    The second half is added to the first until one number is left: additions of whole tensors,
    whose results have the same bits whatever is computed beside them, on every device.
    """
    width = x.shape[-1]
    while width > 1:
        half = -(-width // 2)
        upper = x[..., half:width]
        lower = x[..., : width - half] + upper
        x = lower if width == 2 * half else torch.cat((lower, x[..., width - half : half]), -1)
        width = half
    return x[..., 0]


def _changed(item: Intervention, x: Tensor, values: Tensor | None) -> Tensor:
    """Of what is selected of some rows, fp32 [n, W]."""
    if item.op == "zero":
        return torch.zeros_like(x)
    if item.op == "scale":
        return x * item.scale
    assert values is not None  # as all others have some
    if item.op == "set":
        return values.expand_as(x)
    if item.op == "add":
        return x + values
    along = total(x * values)[:, None]
    if item.op == "project_out":
        return x - along * item.scale * values
    moved = along.clamp(item.low, item.high) - along
    return torch.where(moved == 0, x, x + moved * values)


def _values(item: Intervention, device: torch.device) -> Tensor | None:
    values = item.values
    if values is None:
        return None
    if item.op == "add":
        values = values * np.float32(item.scale)
    elif item.op in ("project_out", "clamp"):
        wide = values.astype(np.float64)
        wide /= np.sqrt(np.square(wide).sum(axis=-1, keepdims=True))
        values = wide.astype(np.float32)
    return upload(values.copy(), device)
