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
    """[n, ...]; ``found`` is then a sum of them and perhaps others, [1]; else [n], each row's
    greatest magnitude."""

    def fault(self) -> Fault | None:
        """None where all are finite and fit."""
        largest = self.found
        if self.rows is not None:
            if bool(largest.isfinite()):
                return None
            largest = greatest(self.rows)  # a sum may not be finite where all of them are
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

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        """On ``stream``, where there is one, ``device`` may write to the arena by itself."""
        self._is_host = device.type == "cpu"
        self._stream = stream
        self._leaving: list[tuple[Tensor, Tensor]] = []  # where from, where to: of one place
        self._sum: Tensor | None = None  # of all rows of that place
        self._due: list[tuple[Tensor, Consume]] = []
        self._checks: list[Check] = []
        self._are_sound = False  # one look has said so of all

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
            return
        # Fewer bytes to move, and a copy where there is nothing to convert.
        converted = values.to(target.dtype, copy=True)
        if self._stream is not None and target.is_contiguous():
            self._leaving.append((converted.contiguous(), target))
        else:
            self._due.append((converted, target.copy_))

    def check(
        self,
        chunk: int,
        name: str,
        positions: Sequence[int],
        dtype: Dtype,
        values: Tensor,
        written: Tensor | None = None,
        among: Tensor | None = None,
    ) -> None:
        """Have ``values`` [n, ...] looked at, a row for each position.

        ``written`` is where they are on the host when the pass is done, all of them in fp32: a look
        at their sum is then enough where all is well. They are ``among`` the rows of the place,
        whose sum says as much: a device makes one for all who ask.
        """
        if written is None:
            found = greatest(values)
        elif self._is_host or among is None:
            found = values.sum()[None]
        else:
            if self._sum is None:
                self._sum = among.sum(dtype=torch.float32)[None]
            found = self._sum
        self._checks.append(Check(chunk, name, positions, dtype, found, written))

    def leave(self) -> None:
        """All of a place was written and checked: what goes to the arena directly sets out."""
        self._sum = None
        if self._stream is None or not self._leaving:
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            for source, target in self._leaving:
                target.copy_(source, non_blocking=True)
                source.record_stream(self._stream)  # its memory is taken again behind the copy
        self._leaving.clear()

    def settle(self) -> None:
        """Wait until nothing writes to the arena any more."""
        if self._stream is not None:
            self._stream.synchronize()

    def finish(self) -> dict[int, Fault]:
        """Wait for all and consume it; the first fault of each chunk that has one."""
        self.leave()
        if not self._is_host and self._checks:
            self._fetch()
        self.settle()
        if self._are_sound:
            return {}
        faults: dict[int, Fault] = {}
        for check in self._checks:
            fault, known = check.fault(), faults.get(check.chunk)
            if fault is not None and (known is None or fault.position < known.position):
                faults[check.chunk] = fault
        return faults

    def _fetch(self) -> None:
        """All that the host has to look at, and what it has to bring to the arena."""
        looks = {id(check.found): check.found for check in self._checks}
        tensors = [values.contiguous().view(torch.uint8) for values, _ in self._due]
        numbers = torch.cat([*looks.values()])
        found = [torch.from_numpy(part) for part in Download(numbers, *tensors).wait()]
        for part, (values, consume) in zip(found[1:], self._due, strict=True):
            consume(part.view(values.dtype))
        has_sums_alone = all(check.rows is not None for check in self._checks)
        self._are_sound = has_sums_alone and bool(found[0].isfinite().all())
        parts = torch.split(found[0], [len(look) for look in looks.values()])
        on_host = dict(zip(looks, parts, strict=True))
        for check in self._checks:
            check.found = on_host[id(check.found)]
        self._due.clear()


def _overflow(name: str, position: int, dtype: Dtype) -> CaptureOverflow:
    wider = "float32 or bfloat16" if dtype == "float16" else "float32"
    return CaptureOverflow(f"{name} at position {position} does not fit {dtype}; ask for {wider}")
