"""From a device to the arena: what a pass shows, whether it fits, and where it goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pythia_bento.engine.capture import Dtype
from pythia_bento.errors import CaptureOverflow, PythiaError
from pythia_bento.executor.download import Download

TYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int32": torch.int32,
}
# From these magnitudes on a number is rounded to infinity: half a last place above the largest.
TOO_LARGE: dict[Dtype, float] = {
    "float32": math.inf,
    "bfloat16": float.fromhex("0x1.ffp127"),
    "float16": 65520.0,
    "int32": math.inf,
}

Consume = Callable[[Tensor], object]
"""Takes what arrived on the host."""


class Fault(NamedTuple):
    """The first row that cannot be shown."""

    position: int
    error: PythiaError | None  # None where numbers are not finite, which is said elsewhere


@dataclass(slots=True)
class Check:
    """Of some rows of a chunk, whether they can be shown."""

    chunk: int
    name: str  # of the place
    positions: Sequence[int]
    dtype: Dtype
    found: Tensor  # fp32; on the host when the pass is done, as ``rows`` are
    rows: Tensor | None
    """[n, ...]; ``found`` is then the sum of all, else [n], each row's greatest magnitude."""

    def fault(self) -> Fault | None:
        """None where all are finite and fit."""
        largest = self.found
        if self.rows is not None:
            if bool(largest.isfinite()):
                return None
            largest = greatest(self.rows)  # a sum may be infinite where none of them is
        bad = ~(largest < TOO_LARGE[self.dtype])  # NaN is not below anything
        if not bool(bad.any()):
            return None
        first = int(bad.nonzero()[0])
        position, is_finite = self.positions[first], bool(largest[first].isfinite())
        return Fault(position, _overflow(self.name, position, self.dtype) if is_finite else None)


def greatest(rows: Tensor) -> Tensor:
    """Of [n, ...] the greatest magnitude of each row, fp32 [n]; NaN where one is."""
    return rows.reshape(len(rows), -1).abs().amax(1).float()


class Outlet:
    """Of one pass. On the host what comes is consumed at once; else after one wait for all."""

    def __init__(self, device: torch.device) -> None:
        self._is_host = device.type == "cpu"
        self._due: list[tuple[Tensor, Consume]] = []
        self._checks: list[Check] = []

    def put(self, values: Tensor, consume: Consume) -> None:
        """``values`` may be written over afterwards."""
        if self._is_host:
            consume(values)
        else:
            self._due.append((values.clone(), consume))

    def write(self, target: Tensor, values: Tensor) -> None:
        """Into ``target``, which is on the host, in its type."""
        if self._is_host:
            target.copy_(values)
        else:  # fewer bytes to move, and a copy where there is nothing to convert
            converted = values.to(target.dtype, copy=True)
            self._due.append((converted, target.copy_))

    def check(
        self,
        chunk: int,
        name: str,
        positions: Sequence[int],
        dtype: Dtype,
        values: Tensor,
        written: Tensor | None = None,
    ) -> None:
        """Have ``values`` [n, ...] looked at, a row for each position.

        ``written`` is where they are on the host when the pass is done, all of them in fp32: a look
        at their sum is then enough where all is well.
        """
        found = greatest(values) if written is None else values.sum()[None]
        self._checks.append(Check(chunk, name, positions, dtype, found, written))

    def finish(self) -> dict[int, Fault]:
        """Wait for all and consume it; the first fault of each chunk that has one."""
        if not self._is_host and self._checks:
            self._fetch()
        faults: dict[int, Fault] = {}
        for check in self._checks:
            fault, known = check.fault(), faults.get(check.chunk)
            if fault is not None and (known is None or fault.position < known.position):
                faults[check.chunk] = fault
        return faults

    def _fetch(self) -> None:
        numbers = torch.cat([check.found for check in self._checks])
        tensors = [values.contiguous().view(torch.uint8) for values, _ in self._due]
        found = [torch.from_numpy(part) for part in Download(numbers, *tensors).wait()]
        for part, (values, consume) in zip(found[1:], self._due, strict=True):
            consume(part.view(values.dtype))
        begin = 0
        for check in self._checks:
            check.found = found[0][begin : (begin := begin + len(check.found))]
        self._due.clear()


def _overflow(name: str, position: int, dtype: Dtype) -> CaptureOverflow:
    wider = "float32 or bfloat16" if dtype == "float16" else "float32"
    return CaptureOverflow(f"{name} at position {position} does not fit {dtype}; ask for {wider}")
