"""Compare results of lm-evaluation-harness with published ones, step by step.

    python tools/compare_evals.py docs/data/pythia-1b-deduped-evals.csv results/*.json

The CSV has the columns num_fewshot, step, task, metric and value; the standard error of a metric
is a row of its own, named ``<metric>_stderr``. A result agrees when it differs from the published
value by at most that value's standard error. The step of a file is that of the model that was
served (``pythia-1b-deduped@step3000``; ``main`` is the last one), or ``--step``. The exit status
is 0 when everything published for those steps was evaluated and agrees, and 1 otherwise.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

LAST_STEP = 143000
RENAMED = {"ppl": "perplexity"}  # the harness called it so when the table was made


class Key(NamedTuple):
    """One figure. ``shots`` are the examples shown before each question."""

    shots: int
    step: int
    task: str
    metric: str


class Figure(NamedTuple):
    value: float
    stderr: float

    def agrees(self, found: float) -> bool:
        return abs(found - self.value) <= self.stderr


def published(path: Path) -> dict[Key, Figure]:
    """The figures of a CSV that have a standard error."""
    values: dict[Key, float] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            metric = row["metric"]
            base = metric.removesuffix("_stderr")
            name = RENAMED.get(base, base) + metric[len(base) :]
            key = Key(int(row["num_fewshot"]), int(row["step"]), row["task"], name)
            values[key] = float(row["value"])
    return {
        key: Figure(value, values[error])
        for key, value in values.items()
        if (error := key._replace(metric=f"{key.metric}_stderr")) in values
    }


def evaluated(path: Path, step: int | None) -> dict[Key, float]:
    """The figures of one file of the harness."""
    data = json.loads(path.read_text())
    step = step_of(data, path) if step is None else step
    return {
        Key(int(shots), step, task, name.partition(",")[0]): float(value)
        for task, shots in data["n-shot"].items()
        for name, value in data["results"].get(task, {}).items()
        if "," in name and isinstance(value, int | float)
    }


def step_of(data: dict[str, Any], path: Path) -> int:
    """The step in the name of the model that was asked for."""
    arguments = data["config"]["model_args"]
    text = (
        arguments
        if isinstance(arguments, str)
        else ",".join(f"{k}={arguments[k]}" for k in arguments)
    )
    if found := re.search(r"\bmodel=[^,@]*@step(\d+)", text):
        return int(found[1])
    if re.search(r"\bmodel=[^,@]*(@main)?(,|$)", text):
        return LAST_STEP
    raise SystemExit(f"{path} does not say which step was evaluated; say it with --step")


def report(wanted: dict[Key, Figure], found: dict[Key, float], allow_missing: bool) -> bool:
    """Print a line for each figure published for the steps evaluated; whether all agree."""
    at_stake = {(key.shots, key.step) for key in found}
    rows = [key for key in sorted(wanted) if (key.shots, key.step) in at_stake]
    outside = missing = 0
    for key in rows:
        figure, value = wanted[key], found.get(key)
        outside += value is not None and not figure.agrees(value)
        missing += value is None
        if value is not None or not allow_missing:
            print(line(key, figure, value))
    compared = len(rows) - missing
    print(f"{compared} compared, {outside} differ by more than a standard error, {missing} missing")
    return compared > 0 and outside == 0 and (allow_missing or missing == 0)


def line(key: Key, figure: Figure, value: float | None) -> str:
    name = f"{key.shots}-shot step {key.step:<6} {key.task:<15} {key.metric:<10}"
    known = f"{name} published {figure.value:.4f} +- {figure.stderr:.4f}"
    if value is None:
        return f"{known}  missing"
    errors = (value - figure.value) / figure.stderr if figure.stderr else float("nan")
    verdict = "agrees" if figure.agrees(value) else "DIFFERS"
    return f"{known}  found {value:.4f} ({errors:+.2f} errors)  {verdict}"


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path, help="the published figures")
    parser.add_argument("results", type=Path, nargs="+", help="results_*.json of lm_eval")
    parser.add_argument("--step", type=int, help="the training step of all results")
    parser.add_argument(
        "--allow-missing", action="store_true", help="compare those tasks alone that were evaluated"
    )
    args = parser.parse_args(list(arguments) if arguments is not None else None)
    found: dict[Key, float] = {}
    for path in args.results:
        found |= evaluated(path, args.step)
    return 0 if report(published(args.csv), found, args.allow_missing) else 1


if __name__ == "__main__":
    sys.exit(main())
