"""From the tables of a sweep to curves over the training steps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pythia_bento.errors import InvalidRequest
from pythia_bento.sweep.rows import files_of, rows_of

MOST_CURVES = 1000
"""More curves than that are no picture: what is drawn then is the mean of each model."""

Part = tuple[float, float]  # a sum, and how many it is the sum of


class Metric(NamedTuple):
    """What of a row is drawn, and how the parts of rows become one value."""

    columns: tuple[str, ...]
    part: Callable[[Mapping[str, Any]], Part]
    value: Callable[[float], float]
    label: str
    is_log: bool = False  # the axis
    of_items: bool = True  # False: a single item's value is 0 or 1, and no curve


def _logprob(row: Mapping[str, Any]) -> Part:
    return float(row["logprob"]), 1.0


def _loss(row: Mapping[str, Any]) -> Part:
    return -float(row["logprob"]), float(row["num_tokens"])


def _rank(row: Mapping[str, Any]) -> Part:
    return math.fsum(math.log(rank) for rank in row["ranks"]), float(len(row["ranks"]))


def _extractable(row: Mapping[str, Any]) -> Part:
    return float(bool(row["extractable"])), 1.0


def _same(value: float) -> float:
    return value


METRICS = {
    "logprob": Metric(("logprob",), _logprob, _same, "log-probability of the continuation, nats"),
    "loss": Metric(("logprob", "num_tokens"), _loss, _same, "loss, nats a token"),
    "rank": Metric(
        ("ranks",), _rank, math.exp, "rank of the token (geometric mean; 1 is greedy)", True
    ),
    "extractable": Metric(
        ("extractable",), _extractable, _same, "share that is extractable", of_items=False
    ),
}


@dataclass(frozen=True, slots=True)
class Curve:
    """Values at steps in ascending order; ``name`` is the item's, empty for all of a model."""

    model: str
    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """All that a picture shows."""

    title: str
    metric: str
    label: str
    is_log: bool
    curves: tuple[Curve, ...]  # of items
    means: tuple[Curve, ...]  # of all items, one for each model
    notes: tuple[str, ...]  # what is not shown, a sentence each


@dataclass(slots=True)
class _Sums:
    """Parts by step."""

    by_step: dict[int, list[Part]] = field(default_factory=lambda: defaultdict(list))

    def curve(self, model: str, name: str, value: Callable[[float], float]) -> Curve:
        steps = sorted(self.by_step)
        means = (_mean(self.by_step[step]) for step in steps)
        return Curve(model, name, tuple(steps), tuple(value(mean) for mean in means))


def _mean(parts: list[Part]) -> float:
    return math.fsum(part[0] for part in parts) / math.fsum(part[1] for part in parts)


class _Reading:
    """What is known after some of the rows."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.models: dict[str, _Sums] = defaultdict(_Sums)
        self.items: dict[tuple[str, int], _Sums] | None = (
            defaultdict(_Sums) if metric.of_items else None
        )
        self.names: dict[tuple[str, int], str] = {}
        self.failed = self.without_step = self.without_value = 0

    def file(self, path: Path) -> None:
        """All rows of one checkpoint. They are added up before the next is read."""
        of_file: dict[tuple[str, int], list[Part]] = defaultdict(list)
        for row in rows_of(path):
            if row["error"] is not None:
                self.failed += 1
            elif row["step"] is None:
                self.without_step += 1
            elif (part := self._part(row, path)) is None:
                self.without_value += 1
            else:
                of_file[row["model"], row["step"]].append(part)
                self._item(row, part)
        for (model, step), parts in of_file.items():
            total = tuple(math.fsum(column) for column in zip(*parts, strict=True))
            self.models[model].by_step[step].append((total[0], total[1]))

    def _part(self, row: Mapping[str, Any], path: Path) -> Part | None:
        """None for a row without tokens, or one whose value is no number."""
        missing = [name for name in self.metric.columns if row[name] is None]
        if missing:
            raise InvalidRequest(
                f"{path} has rows without {missing[0]}: --metric needs a sweep with --tokens for "
                "rank, one with --task extract for extractable, and no generation for the others",
                param="metric",
            )
        try:
            part = self.metric.part(row)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"{path} has a row that is no sweep's: {error}") from None
        return part if part[1] > 0 and all(map(math.isfinite, part)) else None

    def _item(self, row: Mapping[str, Any], part: Part) -> None:
        if self.items is None:
            return
        key = (row["model"], row["item"])
        self.items[key].by_step[row["step"]] = [part]
        self.names.setdefault(key, str(row["item"] if row["id"] is None else row["id"]))
        if len(self.items) > MOST_CURVES:
            self.items = None

    def curves(self) -> Iterator[Curve]:
        for (model, item), sums in sorted((self.items or {}).items()):
            yield sums.curve(model, self.names[model, item], self.metric.value)

    def notes(self) -> Iterator[str]:
        if self.failed:
            yield f"{self.failed:,} rows failed and are left out."
        if self.without_step:
            yield f"{self.without_step:,} rows are of no training step and are left out."
        if self.without_value:
            yield f"{self.without_value:,} rows have no value and are left out."
        if self.items is None and self.metric.of_items:
            yield f"There are more than {MOST_CURVES:,} items: only means of all are drawn."


def usual_metric(folder: Path) -> str:
    """What is drawn where nobody says: by the first row, of extraction the share, else the loss."""
    for path in files_of(folder):
        for row in rows_of(path):
            return "loss" if row["extractable"] is None else "extractable"
    return "loss"


def read_chart(folder: Path, metric: str) -> Chart:
    """Read the tables that a sweep wrote; a file at a time is in memory.

    Raises:
        InvalidRequest: There are none, one cannot be read, or they lack what the metric needs.
    """
    reading = _Reading(METRICS[metric])
    for path in files_of(folder):
        reading.file(path)
    means = tuple(
        sums.curve(model, "", reading.metric.value)
        for model, sums in sorted(reading.models.items())
    )
    if not means:
        raise InvalidRequest(
            f"{folder} has no row that could be drawn: {' '.join(reading.notes())}"
        )
    chosen = METRICS[metric]
    title = f"{', '.join(curve.model for curve in means)}: {chosen.label}"
    curves = tuple(reading.curves())
    return Chart(title, metric, chosen.label, chosen.is_log, curves, means, tuple(reading.notes()))
