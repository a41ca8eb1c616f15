"""What a benchmark found, as a table and against the project's goals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

OURS = "pythia-bento"
BITSANDBYTES = "bitsandbytes"  # both thresholds begin with it
LLAMA = "llama.cpp"
DECODE_1, DECODE_8, PREFILL, LOAD = "decode, batch 1", "decode, batch 8", "prefill 128", "load"


@dataclass(frozen=True, slots=True)
class Result:
    """The medians of one engine at one task, or its memory where ``task`` is "load"."""

    model: str
    engine: str
    task: str
    tokens_per_s: float | None = None
    ms_a_step: float | None = None
    probe_gb_s: float | None = None  # memory bandwidth just before
    percent_of_limit: float | None = None  # decode: time to read the weights once / time of a step
    peak_mb: float | None = None  # while loading, 10^6 bytes; None: not installed
    rounds: tuple[float, ...] = ()  # tokens/s of each
    probes: tuple[float, ...] = ()  # GB/s before each


@dataclass(frozen=True, slots=True)
class Goal:
    """Ours must be ``factor`` times as fast as the best of some others."""

    model: str
    task: str
    rivals: str  # how their names begin
    factor: float


GOALS = (
    Goal("pythia-1b", DECODE_1, BITSANDBYTES, 1.3),
    Goal("pythia-1b", DECODE_1, LLAMA, 0.8),
    Goal("pythia-1b", DECODE_8, "", 1.75),
    Goal("pythia-1b", PREFILL, "", 1.0),
    Goal("pythia-160m", DECODE_1, BITSANDBYTES, 2.0),
)
MEMORY_GOAL = "pythia-1b"  # loading: less than 1.5 times the 8-bit size plus 500 MB


def table(model: str, results: Sequence[Result]) -> str:
    """One line an engine and task."""
    head = f"{'task':16} {'engine':26} {'tokens/s':>9} {'ms/step':>9} {'GB/s':>6} {'% limit':>8}"
    lines = [f"\n{model}", head]
    for r in results:
        if r.task == LOAD:
            found = "not installed (make bench-peers)"
            if r.peak_mb is not None:
                found = f"{r.peak_mb:9.0f} MB at most"
            lines.append(f"{r.task:16} {r.engine:26} {found}")
        else:
            limit = "" if r.percent_of_limit is None else f"{r.percent_of_limit:.0f}"
            lines.append(
                f"{r.task:16} {r.engine:26} {r.tokens_per_s:9.1f} {r.ms_a_step:9.2f} "
                f"{r.probe_gb_s:6.1f} {limit:>8}"
            )
    return "\n".join(lines)


def goals(model: str, int8_bytes: int, results: Sequence[Result]) -> str:
    """Each goal of this model whose engines were measured, and whether it was reached."""
    lines = [*_speed(model, results)]
    if model == MEMORY_GOAL:
        lines += _memory(int8_bytes, results)
    return "\n".join(["goals", *(lines or ["  none for these engines"])])


def _speed(model: str, results: Sequence[Result]) -> Iterator[str]:
    for goal in (goal for goal in GOALS if goal.model == model):
        speeds = {r.engine: r.tokens_per_s or 0 for r in results if r.task == goal.task}
        ours = speeds.pop(OURS, None)
        rivals = {name: v for name, v in speeds.items() if name.startswith(goal.rivals)}
        if ours and rivals:
            best = max(rivals, key=rivals.__getitem__)
            ratio = ours / rivals[best]
            wanted = f"{goal.task}: {ratio:.2f} x {best}, wanted {goal.factor}"
            yield f"  {_verdict(ratio >= goal.factor)} {wanted}"


def _memory(int8_bytes: int, results: Sequence[Result]) -> Iterator[str]:
    limit = 1.5 * int8_bytes / 1e6 + 500
    for r in results:
        if r.engine == OURS and r.task == LOAD and r.peak_mb is not None:
            yield f"  {_verdict(r.peak_mb < limit)} load: {r.peak_mb:.0f} MB, limit {limit:.0f}"


def _verdict(reached: bool) -> str:
    return "reached" if reached else "MISSED "
