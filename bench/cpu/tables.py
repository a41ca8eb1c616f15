"""The tables of docs/benchmarks.md from bench/results: ``python -m bench.cpu.tables``.

One for each ``cpu-<processor>.json``, between ``<!-- bench.cpu.tables -->`` and ``<!-- end -->``.
``--check`` changes nothing and exits with 1 where something would change.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from bench.common.options import parser_of
from bench.common.report import DECODE_1, DECODE_8, LOAD, PREFILL, SCORE

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
BLOCK = re.compile(r"(<!-- bench\.cpu\.tables -->\n).*?(<!-- end -->)", re.DOTALL)
SPEEDS = (DECODE_1, DECODE_8, PREFILL, SCORE)
COLUMNS = ("shape", "engine", f"{DECODE_1} (% of the limit)", *SPEEDS[1:], "load, MB")

Row = dict[str, Any]


def filled(page: str, results: Path) -> str:
    """A page with its tables made anew."""
    made = "\n".join(_section(path) for path in sorted(results.glob("cpu-*.json")))
    return BLOCK.sub(lambda block: block[1] + made + block[2], page)


def _section(path: Path) -> str:
    record = json.loads(path.read_text())
    rows: dict[tuple[str, str], dict[str, Row]] = {}
    for result in record["results"]:
        rows.setdefault((result["model"], result["engine"]), {})[result["task"]] = result
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    lines += [_line(*names, tasks) for names, tasks in rows.items() if len(tasks) > 1]
    host = record["machine"]
    return (
        f"### {host['cpu']}, {host['cores']} cores\n\n"
        f"Tokens/s; {', '.join(host['isa'])}; `{record['command']}`, {record['date'][:10]}, "
        f"`bench/results/{path.name}`.\n\n" + "\n".join(lines) + "\n\n" + _ended(record["results"])
    )


def _line(model: str, engine: str, tasks: dict[str, Row]) -> str:
    cells = [model.removeprefix("pythia-"), engine, *(_speed(tasks.get(task)) for task in SPEEDS)]
    peak = tasks[LOAD].get("peak_mb") if LOAD in tasks else None
    return "| " + " | ".join([*cells, f"{peak:,.0f}" if peak else ""]) + " |"


def _speed(row: Row | None) -> str:
    if row is None or row.get("tokens_per_s") is None:
        return "ended" if row else ""
    rate = row["tokens_per_s"]
    text = f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
    if row["task"] == SCORE and row.get("batch"):
        return f"{text} (batches of {row['batch']})"
    return f"{text} ({row['percent_of_limit']:.0f})" if row["task"] == DECODE_1 else text


def _ended(results: list[Row]) -> str:
    """Whose process did not live to the end, and why."""
    found = [r for r in results if r.get("ended")]
    return "".join(f"{r['engine']}, {r['model']}, {r['task']}: {r['ended']}.\n\n" for r in found)


def main() -> None:
    parser = parser_of("bench.cpu.tables", __doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = PAGE.read_text()
    new = filled(old, RESULTS)
    if new != old and not check:
        PAGE.write_text(new)
    print("up to date" if new == old else "stale" if check else "written")
    sys.exit(check and new != old)


if __name__ == "__main__":
    main()
