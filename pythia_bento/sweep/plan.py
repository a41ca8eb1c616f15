"""What a sweep would take, from rates that were measured; nothing is run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pythia_bento import catalog
from pythia_bento.sweep.inside_task import ActivationsTask
from pythia_bento.sweep.spec import ExtractTask, GenerateTask, SweepSpec

RATES = Path(__file__).parent / "static" / "rates.json"
DEVICES = ("h200", "cpu")
NOT_WRITTEN = "Activations are read and written on top of that: nobody measured them in a sweep."
AT_MOST = "Tokens are at most that many: no tokenizer of these models is here."
ORIGINAL_BYTES = 2  # of a parameter on the hub: fp16


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens at one checkpoint: read and scored, and generated."""

    scored: int
    generated: int = 0


def work_of(spec: SweepSpec, count: Callable[[Any], int]) -> Work:
    """That of a sweep's items, of whose prompts ``count`` says the tokens."""
    task, num = spec.task, len(spec.items)
    if isinstance(task, ExtractTask):
        wanted = task.prompt_tokens + task.tokens
        return Work(num * wanted, num * task.tokens if task.share else 0)
    texts = (text for item in spec.items for text in (item.prompt, item.continuation))
    tokens = sum(count(text) for text in texts if text is not None)
    if isinstance(task, (ActivationsTask, GenerateTask)):
        return Work(tokens, num * (task.max_tokens or 0))
    return Work(tokens)


@dataclass(frozen=True, slots=True)
class Part:
    """Checkpoints of one model."""

    model: str
    parameters: int
    nbytes: int  # of one in 8 bits
    checkpoints: int
    missing: int  # that are to be downloaded

    @classmethod
    def of(cls, model: str, checkpoints: int, missing: int) -> Part:
        """A model of the suite; raises ModelNotFound."""
        shape = catalog.config(model)
        size = catalog.int8_bytes(shape)
        return cls(model, catalog.parameters(shape), size, checkpoints, missing)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one part. Seconds are None where nothing was measured that holds for it."""

    part: Part
    tokens: int  # at all checkpoints
    load_seconds: float | None
    compute_seconds: float | None
    measured: tuple[str, ...]  # sizes whose rates these are: the next larger that was measured

    @property
    def download_bytes(self) -> int:
        """Of the originals that are not here."""
        return self.part.missing * self.part.parameters * ORIGINAL_BYTES

    @property
    def disk_bytes(self) -> int:
        """Of all checkpoints in 8 bits, if no two are equal."""
        return self.part.checkpoints * self.part.nbytes

    @property
    def seconds(self) -> float | None:
        """Of one device: loads go on beside the computing, so the longer of both."""
        if self.compute_seconds is None:
            return None
        return max(self.compute_seconds, self.load_seconds or 0.0)

    @property
    def bound(self) -> str:
        """Which of them that is."""
        if self.compute_seconds is None:
            return "not measured"
        return "loads" if (self.load_seconds or 0.0) > self.compute_seconds else "compute"


@dataclass(frozen=True, slots=True)
class Plan:
    """Of a whole sweep."""

    device: str
    estimates: tuple[Estimate, ...]
    hours: float  # that it may take

    @property
    def device_hours(self) -> float | None:
        """Of one device for all; None where a part is not known."""
        seconds = [one.seconds for one in self.estimates]
        known = [one for one in seconds if one is not None]
        return math.fsum(known) / 3600 if len(known) == len(seconds) else None

    @property
    def machines(self) -> int | None:
        """Devices of this kind that end within ``hours``, where work divides evenly."""
        total = self.device_hours
        return None if total is None else max(1, math.ceil(total / self.hours))


def plan(parts: Sequence[Part], work: Work, device: str, hours: float = 1.0) -> Plan:
    """``work`` is that of each checkpoint; ``device`` one of ``DEVICES``."""
    rates = _rates()[device]
    return Plan(rates["device"], tuple(_estimate(one, work, rates) for one in parts), hours)


def _estimate(part: Part, work: Work, rates: Mapping[str, Any]) -> Estimate:
    scoring, generating = (_rate(part, rates[what]) for what in ("score", "generate"))
    loading = rates["load_bytes_per_s"]
    compute = None
    if scoring and generating:
        a_checkpoint = work.scored / scoring[1] + work.generated / generating[1]
        compute = part.checkpoints * a_checkpoint
    used = [one[0] for one in (scoring, generating if work.generated else None) if one]
    return Estimate(
        part,
        part.checkpoints * (work.scored + work.generated),
        loading and part.checkpoints * part.nbytes / loading["value"],
        compute,
        tuple(dict.fromkeys(used)),
    )


def _rate(part: Part, measured: Mapping[str, Any]) -> tuple[str, float] | None:
    """That of this size, else of the next larger one, which is slower; and whose it is."""
    sizes = {model: _size(model) for model in measured}
    larger = [model for model in sizes if sizes[model] >= part.parameters]
    if not larger:
        return None
    model = min(larger, key=sizes.__getitem__)
    return model, float(measured[model]["tokens_per_s"])


def _size(model: str) -> int:
    return catalog.parameters(catalog.config(model))


@cache
def _rates() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RATES.read_text())
    return found


def rendered(found: Plan) -> list[str]:
    """Lines of a table, and what follows from it."""
    head = ("model", "checkpoints", "download", "disk", "tokens", "loads", "compute", "bound by")
    rows = [head, *(_cells(one) for one in found.estimates)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if place in (0, len(head) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [*lines, "", *_closing(found)]


def _cells(one: Estimate) -> tuple[str, ...]:
    return (
        one.part.model,
        f"{one.part.checkpoints:,}",
        size_text(one.download_bytes),
        size_text(one.disk_bytes),
        f"{one.tokens:,}",
        time_text(one.load_seconds),
        time_text(one.compute_seconds),
        one.bound,
    )


def _closing(found: Plan) -> list[str]:
    total, machines = found.device_hours, found.machines
    if total is None or machines is None:
        return [f"On {found.device} nothing was measured that holds for all of these models."]
    hours, within = time_text(total * 3600), time_text(found.hours * 3600)
    lines = [f"{hours} on one {found.device}; within {within}: {machines} of them."]
    for one in found.estimates:
        if others := [model for model in one.measured if _size(model) != one.part.parameters]:
            lines.append(f"{one.part.model}: by rates of {', '.join(others)}, the next larger.")
    return lines


def size_text(nbytes: int) -> str:
    """In GB of 10^9 bytes."""
    return f"{nbytes / 1e9:,.1f} GB"


def time_text(seconds: float | None) -> str:
    """In the unit that people would say it in."""
    if seconds is None:
        return "-"
    for most, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < most:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds / 86_400:,.1f} days"
