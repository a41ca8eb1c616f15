"""What ``pythia-bento sweep --plan`` reckons with, from bench/results.

``python -m bench.common.sweep_rates`` writes pythia_bento/sweep/static/rates.json, and in
docs/sweeps.md the table and what the example of ``--plan`` prints. ``--check`` changes nothing and
exits with 1 where something would change.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pythia_bento.catalog import STEPS
from pythia_bento.sweep.plan import (
    AT_MOST,
    RATES,
    Part,
    Work,
    plan,
    rendered,
    size_text,
    time_text,
)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "sweeps.md"
BLOCK = re.compile(r"(<!-- bench\.common\.sweep_rates -->\n).*?(<!-- end -->)", re.DOTALL)
EXAMPLE = re.compile(r"(--plan --hours 0\.05\n```\n\n```text\n).*?(```)", re.DOTALL)
TEXTS = re.compile(r"<<'END'\n(.*?)END\n", re.DOTALL)
OURS = ("pythia-bento w8a16", "pythia-bento")
TWO_CORES = "cpu-amd-epyc-family-25-model-17.json"

PILE = 146_432_000  # sequences that a model has seen after 143,000 steps of 1,024
TASKS = {
    "1,000 texts of 128 tokens": Work(1_000 * 128),
    "64 tokens of each sequence of the Pile": Work(PILE * 64),
}
SIZES = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")

Row = dict[str, Any]


class Results:
    """Files of bench/results, those that were read with their commands."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.commands: dict[str, str] = {}

    def rows(self, name: str) -> list[Row]:
        record = json.loads((self._folder / name).read_text())
        self.commands[name] = record["command"]
        rows: list[Row] = record.get("results") or record["rows"]
        return rows

    def rates(self, name: str, wanted: Callable[[Row], float | None]) -> dict[str, Row]:
        """By model: what ``wanted`` makes of one of its rows of ours."""
        return {
            row["model"]: {"tokens_per_s": round(rate, 1), "result": name}
            for row in self.rows(name)
            if (row.get("backend") or row.get("engine")) in OURS and (rate := wanted(row))
        }


def rates(folder: Path = RESULTS) -> dict[str, Any]:
    gpu, cpu = Results(folder), Results(folder)
    h200 = {
        "device": "NVIDIA H200",
        "load_bytes_per_s": _load(gpu),
        # Whole texts where they were measured; of larger models the pass that scoring is, too.
        "score": gpu.rates("h200-sizes.json", _prefill)
        | gpu.rates("h200-workloads.json", _score)
        | gpu.rates("h200-workloads-1b.json", _score),
        "generate": gpu.rates("h200-sizes.json", _decode) | gpu.rates("h200-decode.json", _decode),
    }
    two_cores = {
        "device": "machine of two cores (AMD EPYC, AVX-512)",
        "load_bytes_per_s": None,
        "score": cpu.rates(TWO_CORES, lambda row: _task(row, "prefill 128")),
        "generate": cpu.rates(TWO_CORES, lambda row: _task(row, "decode, batch 8")),
    }
    return {
        "h200": {**h200, "commands": gpu.commands},
        "cpu": {**two_cores, "commands": cpu.commands},
    }


def _load(results: Results) -> dict[str, Any]:
    """From the disk to the first answer, the median of all."""
    name = "h200-loads.json"
    alone = [row for row in results.rows(name) if row["what"] == "alone"]
    each = [row["bytes"] / row["answer_after_ms"] * 1000 for row in alone]
    return {"value": round(statistics.median(each)), "result": name}


def _score(row: Row) -> float | None:
    most = row.get("max_tokens_per_prompt_step", 8192)  # by default
    shape = row["workload"], row.get("prompt"), row.get("max_tokens_per_step"), most
    is_usual = shape == ("score", 128, 2048, 8192)
    return row["tokens_per_s"] if is_usual else None


def _prefill(row: Row) -> float | None:
    """256 prompts of 128 tokens until the first token."""
    return 256 * 128 / row["first_token_ms"] * 1000 if row["batch"] == 256 else None


def _decode(row: Row) -> float | None:
    return row["tokens_per_s"] if row["batch"] == 256 else None


def _task(row: Row, task: str) -> float | None:
    return row["tokens_per_s"] if row["task"] == task else None


def table() -> str:
    """All steps of each size on H200s, for docs/sweeps.md."""
    head = ["model", "download, disk", "loads"]
    for what in TASKS:
        head += [f"{what}: compute", "bound by", "H200s for a week"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for size in SIZES:
        part = Part.of(f"pythia-{size}", len(STEPS), len(STEPS))
        found = [plan([part], work, "h200", hours=7 * 24) for work in TASKS.values()]
        first = found[0].estimates[0]
        cells = [f"{size_text(first.download_bytes)}, {size_text(first.disk_bytes)}"]
        cells.append(time_text(first.load_seconds))
        for one in found:
            [estimate] = one.estimates
            cells += [time_text(estimate.compute_seconds), estimate.bound, str(one.machines)]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def example(page: str) -> str:
    """What ``sweep pythia-410m pythia-1b --plan --hours 0.05`` prints for the page's texts."""
    [texts] = TEXTS.findall(page)
    work = Work(sum(len(line.encode()) for line in texts.splitlines()))
    parts = [Part.of(model, len(STEPS), len(STEPS)) for model in ("pythia-410m", "pythia-1b")]
    lines = [*rendered(plan(parts, work, "h200", hours=0.05)), AT_MOST]
    return "\n".join(lines) + "\n"


def filled(page: str) -> str:
    page = EXAMPLE.sub(lambda block: block[1] + example(page) + block[2], page)
    return BLOCK.sub(lambda block: block[1] + table() + block[2], page)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.common.sweep_rates", description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    wanted = {RATES: json.dumps(rates(), indent=2) + "\n"}
    if not options.check:
        RATES.write_text(wanted[RATES])
    wanted[PAGE] = filled(PAGE.read_text())
    stale = [path.name for path, text in wanted.items() if path.read_text() != text]
    if not options.check:
        PAGE.write_text(wanted[PAGE])
    print("stale: " * options.check + ", ".join(stale) if stale else "all is up to date")
    sys.exit(options.check and bool(stale))


if __name__ == "__main__":
    main()
