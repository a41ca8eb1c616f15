"""What a benchmark found, as a table and against the project's goals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

OURS = "pythia-bento"
TRANSFORMERS = "transformers"  # in either type of numbers
DECODE_1, DECODE_8, PREFILL, LOAD = "decode, batch 1", "decode, batch 8", "prefill 128", "load"
SCORE = "score texts of 128"


@dataclass(frozen=True, slots=True)
class Result:
    """The medians of one engine at one task, or its memory where ``task`` is "load"."""

    model: str
    engine: str
    task: str
    ended: str | None = None  # how its process ended at this task: then there are no figures
    batch: int | None = None  # texts at a time, where it was the engine's best
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
    Goal("pythia-1b", DECODE_1, "", 1.15),
    Goal("pythia-1b", DECODE_8, "", 1.75),
    Goal("pythia-1b", PREFILL, "", 2.0),
    Goal("pythia-1b", SCORE, TRANSFORMERS, 1.75),
    Goal("pythia-160m", DECODE_1, "", 1.3),
    Goal("pythia-160m", DECODE_8, "", 1.75),
    Goal("pythia-160m", PREFILL, "", 2.0),
    Goal("pythia-160m", SCORE, TRANSFORMERS, 1.75),
)
MEMORY_GOAL = "pythia-1b"  # loading: less than 1.5 times the 8-bit size plus 500 MB


def table(model: str, results: Sequence[Result]) -> str:
    """One line an engine and task."""
    head = f"{'task':18} {'engine':26} {'tokens/s':>9} {'ms/step':>9} {'GB/s':>6} {'% limit':>8}"
    return "\n".join([f"\n{model}", head, *map(_line, results)])


def _line(r: Result) -> str:
    start = f"{r.task:18} {r.engine:26}"
    if r.ended:
        return f"{start} ended: {r.ended}"
    if r.task == LOAD:
        found = "not installed (make bench-peers)"
        return f"{start} {found if r.peak_mb is None else f'{r.peak_mb:9.0f} MB at most'}"
    limit = "" if r.percent_of_limit is None else f"{r.percent_of_limit:.0f}"
    batch = f" in batches of {r.batch}" if r.task == SCORE and r.batch else ""
    return f"{start} {r.tokens_per_s:9.1f} {r.ms_a_step:9.2f} {r.probe_gb_s:6.1f} {limit:>8}{batch}"


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
