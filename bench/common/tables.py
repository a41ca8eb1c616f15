"""The GPU tables of README.md and docs/gpu.md from bench/results.

``python -m bench.common.tables`` writes them. A table stands between ``<!-- bench.common.tables:
NAME -->`` and ``<!-- end -->``; what is between them is replaced. ``--check`` changes nothing and
exits with 1 where something would change.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.common import workload_tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
PAGES = ("README.md", "docs/gpu.md")
BLOCK = re.compile(r"(<!-- bench\.common\.tables: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

OURS = "pythia-bento w8a16"
TARGETS = {1: 2000, 8: 12000, 32: 36000, 128: 64000, 256: 73000}  # decode tokens/s, pythia-1b

# Modules that are not in bench/gpu, below bench.
MODULES = {
    "serve": "serving.serve",
    "overhead": "serving.overhead",
    "workloads": "workloads",
    "workloads-1b": "workloads",
    "workloads-mixed": "workloads",
}

Rows = list[dict[str, Any]]  # the results of a file, or of several


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.common.tables", description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = []
    for page in PAGES:
        old = (ROOT / page).read_text()
        new = filled(old, RESULTS)
        if new != old:
            stale.append(page)
            if not options.check:
                (ROOT / page).write_text(new)
    print("stale: " * options.check + ", ".join(stale) if stale else "all tables are up to date")
    sys.exit(options.check and bool(stale))


def filled(page: str, results: Path) -> str:
    """A page with its tables made anew; raises KeyError for a name that is no table."""
    return BLOCK.sub(lambda block: block[1] + table(block[2], results) + block[3], page)


def table(name: str, results: Path) -> str:
    """One table with its sources, or how to measure it where nobody has."""
    stems, make, about_caveat = TABLES[name]
    paths = [path for stem in stems if (path := results / f"h200-{stem}.json").exists()]
    if not paths:
        stem = stems[0]
        module = f"bench.{MODULES.get(stem, f'gpu.{stem}')}"
        return f"Not measured yet: `python -m {module}` writes `bench/results/h200-{stem}.json`.\n"
    records = [json.loads(path.read_text()) for path in paths]
    sources = "".join(map(_source, records, paths))
    # What the first file's caveat becomes is the table's; further files speak for themselves.
    forms = [about_caveat, *[CAVEAT] * (len(stems) - 1)]
    caveats = "".join(
        f"\n{form.format(record['caveat'])}\n"
        for form, record in zip(forms, records, strict=False)
        if "caveat" in record
    )
    return make([row for record in records for row in record["results"]]) + f"\n{sources}{caveats}"


def _source(record: dict[str, Any], path: Path) -> str:
    versions = record["versions"]
    software = [f"{name} {versions[name]}" for name in ("torch", "triton") if name in versions]
    device = record["machine"].get("gpu", record["machine"]["cpu"])
    what = ", ".join([device, *software, record["date"][:10]])
    return f"{what}: `{record['command']}` (`{path.name}`).\n"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def decode(results: Rows) -> str:
    """pythia-1b: tokens/s of every backend by batch, and the targets."""
    rows = [row for row in results if row["model"] == "pythia-1b"]
    batches = sorted({row["batch"] for row in rows})
    found = {(row["backend"], row["batch"]): row["tokens_per_s"] for row in rows}
    lines = [["target", *(_whole(TARGETS.get(batch)) for batch in batches)]]
    for backend in dict.fromkeys(row["backend"] for row in rows):
        lines.append([backend, *(_whole(found.get((backend, batch))) for batch in batches)])
    return _markdown(["tokens/s", *(f"batch {batch}" for batch in batches)], lines)


def short(results: Rows) -> str:
    """The README's: as ``decode``, without targets."""
    rows = decode(results).splitlines(keepends=True)
    return "".join(row for row in rows if not row.startswith("| target"))


def steps(results: Rows) -> str:
    """pythia-1b: what a step takes and moves."""
    rows = [row for row in results if row["model"] == "pythia-1b" and row["backend"] == OURS]
    return _markdown(
        ["batch", "ms a step", "GB/s", "% of the limit", "all first tokens after, ms"],
        (
            [
                *(str(row["batch"]), f"{row['step_ms']:.3f}", _whole(row["gb_per_s"])),
                *(_percent(row["share_of_limit"]), f"{row['first_token_ms']:.2f}"),
            ]
            for row in rows
        ),
    )


def sizes(results: Rows) -> str:
    """All sizes: tokens/s and share of the limit by batch."""
    rows = [row for row in results if row["backend"] == OURS]
    found = {(row["model"], row["batch"]): row for row in rows}
    # Batches that only one size was measured with are in its own table.
    models = list(dict.fromkeys(row["model"] for row in rows))
    batches = [
        batch
        for batch in sorted({row["batch"] for row in rows})
        if sum((model, batch) in found for model in models) > 1
    ]
    head = ["", *(f"batch {batch}, tokens/s (% of the limit)" for batch in batches)]
    lines = []
    for model in sorted(models, key=_size):
        cells = [found.get((model, batch)) for batch in batches]
        shown = [f"{_whole(c['tokens_per_s'])} {_limit(c)}".strip() if c else "" for c in cells]
        lines.append([model.removeprefix("pythia-"), *shown])
    return _markdown(head, lines)


def _size(model: str) -> float:
    number = model.removeprefix("pythia-")
    return float(number[:-1]) * {"m": 1, "b": 1000}[number[-1]]


def _limit(row: dict[str, Any]) -> str:
    return f"({_percent(row['share_of_limit'])})" if "share_of_limit" in row else ""


def prefill(results: Rows) -> str:
    """Time and rate by batch, and the device's clock meanwhile."""
    return _markdown(
        ["", "prompts x tokens", "ms", "tokens/s", "TFLOP/s", "MHz", "W", "slowed by"],
        (
            [
                *(row["model"].removeprefix("pythia-"), f"{row['batch']} x {row['prompt']}"),
                *(f"{row['ms']:.2f}", _whole(row["tokens_per_s"]), _whole(row.get("tflops"))),
                *(_whole(row.get("sm_mhz")), _whole(row.get("watts"))),
                ", ".join(row.get("slowed_by", ())),
            ]
            for row in results
        ),
    )


def products(results: Rows) -> str:
    """Both families of kernels for many tokens."""

    def cell(rows: Rows) -> str:
        best = min(rows, key=lambda row: row["us"])
        return f"{best['us']:,.1f} ({best['tflops']:.0f})"

    def rows(kernel: str, tokens: int) -> Sequence[str]:
        by_kind: dict[str, Rows] = {}
        for row in results:
            if row["kernel"] == kernel and row["tokens"] == tokens:
                by_kind.setdefault(row["what"], []).append(row)
        widening = f"{by_kind['widening'][0]['us']:.1f}"
        return [kernel, f"{tokens:,}", widening, cell(by_kind["triton"]), cell(by_kind["cuda"])]

    shapes = dict.fromkeys((row["kernel"], row["tokens"]) for row in results)
    return _markdown(
        [
            *("", "tokens", "widening, us", "Triton with widening, us (TFLOP/s)"),
            "CUDA without, us (TFLOP/s)",
        ],
        (rows(*shape) for shape in shapes),
    )


def serve(results: Rows) -> str:
    """Engine and service under the same load."""
    return _markdown(
        [
            *("", "tokens/s", "of the engine", "target", "first token p50, p99 ms"),
            *("between arrivals p50, p99 ms", "processor time a token, us"),
        ],
        (
            [
                *(f"{row['backend']}, {row['batch']} clients", _whole(row["tokens_per_s"])),
                *(_percent(row.get("share_of_engine")), _percent(row.get("target_share"))),
                *(_pair(row["first_token_ms"]), _pair(row["gap_ms"])),
                _whole(row.get("server_cpu_us_per_token")),
            ]
            for row in results
        ),
    )


def latency(results: Rows) -> str:
    """Gaps with and without long prompts."""
    return _markdown(
        [
            *("tokens a step", "long prompts", "tokens/s", "gap p50, p99, max ms"),
            "their first token p50, p99 ms",
        ],
        (
            [
                str(row["max_tokens_per_step"]),
                f"every {row['every_ms']:g} ms" if row["every_ms"] else "none",
                _whole(row["tokens_per_s"]),
                f"{_pair(row['gap_ms'])}, {row['gap_ms']['max']:.2f}",
                _pair(row["long_first_token_ms"]),
            ]
            for row in results
        ),
    )


def profile(results: Rows) -> str:
    """What the host does in decode visits."""
    return _markdown(
        [
            *("batch", "steps in visits", "graph launches", "kernels a step", "copies"),
            *("host waits in replays", "waits for tokens", "device busy"),
        ],
        (
            [
                *(str(row["batch"]), f"{row['steps']} in {row['visits']}"),
                *(str(row["graph_launches"]), f"{row['kernels_per_step']:g}", str(row["memcpy"])),
                str(sum(row["waits_in_replay"].values())),
                *(str(sum(row["waits_for_tokens"].values())), _percent(row["gpu_busy_share"])),
            ]
            for row in results
        ),
    )


def dependence(results: Rows) -> str:
    """Answers that change with company."""
    return _markdown(
        ["", "answers that change in a batch", "largest change of a log-probability"],
        (
            [
                row["backend"],
                f"{row['changed']} of {row['of']}",
                f"{row['max_logprob_difference']:.3g}",
            ]
            for row in results
        ),
    )


def _whole(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _pair(spread: dict[str, float] | None) -> str:
    return "" if spread is None else f"{spread['p50']:.2f}, {spread['p99']:.2f}"


CAVEAT = "**Caveat.** {}"
ABOVE = "See the caveat above."
TABLES: dict[str, tuple[tuple[str, ...], Callable[[Rows], str], str]] = {
    "gpu": (("decode",), short, "See the caveat in [docs/gpu.md](docs/gpu.md)."),
    "decode": (("decode",), decode, CAVEAT),
    "steps": (("decode",), steps, ABOVE),
    "sizes": (("decode", "sizes"), sizes, ABOVE),
    "prefill": (("prefill",), prefill, CAVEAT),
    "products": (("prefill-product",), products, CAVEAT),
    "serve": (("serve",), serve, CAVEAT),
    "latency": (("latency",), latency, CAVEAT),
    "profile": (("profile",), profile, CAVEAT),
    "dependence": (("dependence",), dependence, CAVEAT),
    "scoring": (("workloads", "workloads-1b"), workload_tables.scoring, CAVEAT),
    "mixed": (("workloads-mixed",), workload_tables.mixed, ABOVE),
    "options": (("workloads-mixed",), workload_tables.options, CAVEAT),
    "option-kernels": (("options",), workload_tables.option_kernels, ABOVE),
    "long": (("workloads-1b",), workload_tables.long, ABOVE),
    "checkpoints": (("checkpoints",), workload_tables.checkpoints, CAVEAT),
}
"""Names in the pages: files (``h200-<stem>.json``), what makes the table, what a caveat becomes."""


if __name__ == "__main__":
    main()
