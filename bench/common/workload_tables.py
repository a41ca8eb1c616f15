"""Tables of ``bench.workloads`` and ``bench.gpu.checkpoints``; see ``bench.common.tables``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Rows = list[dict[str, Any]]
Name = Callable[[dict[str, Any]], str]

DEFAULT = 2048  # tokens a step
MOST = 8192  # in one that nobody waits for


def scoring(results: Rows) -> str:
    """Tokens scored a second, ours and the peers'."""
    rows = [row for row in results if row["workload"] == "score"]
    rows = [row for row in rows if row.get("max_tokens_per_step", DEFAULT) in (DEFAULT, MOST)]
    return _cross(rows, lambda row: f"{_model(row)}, {row['texts']:,} x {row['prompt']}", _backend)


def mixed(results: Rows) -> str:
    """Generated tokens a second, by sequences and tokens in a step."""
    rows = [row for row in results if row["workload"] == "mixed"]
    return _cross(
        rows,
        lambda row: f"{row['batch']} sequences in a step" if "batch" in row else row["backend"],
        _budget,
    )


def options(results: Rows) -> str:
    """Generated tokens a second, by options of sampling."""
    rows = [row for row in results if row["workload"] == "options"]
    return _cross(rows, lambda row: row["options"], _whose_batch)


def option_kernels(results: Rows) -> str:
    """Microseconds of what options add to a step before a token is chosen."""
    rows = [row for row in results if row["spread"] == 2.0]
    return _cross(rows, lambda row: row["options"], _batch, "us")


def long(results: Rows) -> str:
    """Prompts read, and tokens generated behind long contexts."""
    prompts = [row for row in results if row["workload"] == "prefill"]
    contexts = [row for row in results if row["workload"] == "context"]
    first = _cross(
        prompts,
        lambda row: f"prompts of {row['prompt']:,}, {row['batch']} at once",
        lambda row: _budget(row) if _is_ours(row) else row["backend"],
    )
    second = _cross(contexts, lambda row: f"context {row['context']:,}", _whose_batch)
    return f"{first}\n{second}"


def checkpoints(results: Rows) -> str:
    """What many checkpoints on a GPU cost, beside what was aimed at."""
    found = {row["what"]: row for row in results}
    change, room, host = found["switch"], found["capacity"], found["host"]
    one, bits = found["one model"], found["bits"]
    two = max((row for row in results if row["what"] == "pair"), key=lambda row: row["residents"])
    same = bits["compared"] - len(bits["different"])
    lines = [
        ["", "measured", "target"],
        ["---"] * 3,
        [
            f"other weights before each of {change['switches']:,} steps, p50, p99 ms",
            f"{change['p50_ms']:.2f}, {change['p99_ms']:.2f}",
            "0.8",
        ],
        [
            f"checkpoints beside {room['cache_bytes'] / 1e9:.1f} GB of keys and values",
            f"{room['residents']}",
            "100",
        ],
        [
            "from the host, GB/s (of a plain copy)",
            f"{host['gb_per_s']:.1f} ({host['share']:.0%})",
            "80 %",
        ],
        [
            f"tokens/s of two with {two['clients_each']} clients each (of one model with as many)",
            f"{two['tokens_per_s']:,.0f} ({one['pair_share']:.0%})",
            "93 %",
        ],
        ["answers with the bits of each alone", f"{same} of {bits['compared']}", "all"],
    ]
    return _markdown(lines).replace("%)", " %)")


def _backend(row: dict[str, Any]) -> str:
    """With the tokens of its steps where they are not the default."""
    tokens = row.get("max_tokens_per_step", DEFAULT)
    most = row.get("max_tokens_per_prompt_step")
    is_usual = tokens == DEFAULT and most in (None, MOST)
    return str(row["backend"]) + ("" if is_usual else f", {_budget(row)}")


def _budget(row: dict[str, Any]) -> str:
    """Tokens in a step, and in one that nobody waits for where that is more."""
    if (tokens := row.get("max_tokens_per_step")) is None:
        return "defaults"
    most = max(tokens, row.get("max_tokens_per_prompt_step", 0))
    return f"{tokens:,} tokens a step" if most == tokens else f"up to {most:,} tokens a step"


def _model(row: dict[str, Any]) -> str:
    return str(row["model"]).removeprefix("pythia-")


def _is_ours(row: dict[str, Any]) -> bool:
    return str(row["backend"]).startswith("pythia-bento")


def _whose_batch(row: dict[str, Any]) -> str:
    return _batch(row) + ("" if _is_ours(row) else f", {row['backend']}")


def _batch(row: dict[str, Any]) -> str:
    return f"batch {row['batch']}"


def _cross(rows: Rows, line: Name, column: Name, unit: str = "tokens/s") -> str:
    """A figure by two names, each in the order in which it is first seen."""
    field = unit.replace("/", "_per_")
    found = {(line(row), column(row)): f"{row[field]:,.0f}" for row in rows}
    columns = list(dict.fromkeys(column(row) for row in rows))
    lines = [
        [name, *(found.get((name, other), "") for other in columns)]
        for name in dict.fromkeys(line(row) for row in rows)
    ]
    return _markdown([[unit, *columns], ["---"] * (1 + len(columns)), *lines])


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
