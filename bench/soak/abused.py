"""What attacks did to a server, its memory and its honest caller, and what must not be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.common.stats import percentile
from bench.soak.witness import Sample, Weight

IDLE = "idle"  # the phases in which nobody attacks
GOALS = {"livez_ms": 250.0, "peak_mib": 1.2 * 1024, "kept_mib": 192.0, "times_idle": 3.0}
TRANSPORTS = ("http", "grpc")
# What attackers may be answered: what they asked for, or that it is their own fault or too much.
# Some leave, or close, before.
ANSWERS = {
    *("200", "400", "404", "413", "429", "OK", "INVALID_ARGUMENT", "NOT_FOUND"),
    *("RESOURCE_EXHAUSTED", "TimeoutError", "DEADLINE_EXCEEDED", "left", "closed by the server"),
}
PATIENT = {"bursts_over_grpc": "DEADLINE_EXCEEDED"}  # who waits for a minute is answered before


@dataclass(frozen=True, slots=True)
class Witnesses:
    """All they saw."""

    lives: Sequence[Sample]  # of who asks whether the server lives
    firsts: Sequence[Sample]  # of who asks honestly
    weights: Sequence[Weight]  # of the server's processes, the first of them before all attacks


def figures_of(phases: Sequence[dict[str, Any]], seen: Witnesses) -> dict[str, Any]:
    """Of the memory, of the idle server, and of each phase."""
    idle = [phase["between"] for phase in phases if phase["phase"] == IDLE]
    firsts = [s for s in seen.firsts if any(begin <= s.at < end for begin, _, end in idle)]
    return {
        "memory_mib": {
            "before": _mib(seen.weights[:1]),
            "peak": _mib(seen.weights),
            "end": _mib(seen.weights[-1:]),
        },
        "idle_first_token_ms": _first_tokens(firsts),
        "phases": [_phase(phase, seen) for phase in phases],
    }


def _phase(phase: dict[str, Any], seen: Witnesses) -> dict[str, Any]:
    """What the witnesses saw in a phase, and while its attackers' time was burnt."""
    begin, attacked, end = phase.pop("between")
    alive = [sample for sample in seen.lives if begin <= sample.at < end]
    here = [sample for sample in seen.firsts if begin <= sample.at < attacked]
    found = {
        **phase,
        "livez_worst_ms": round(max((s.seconds for s in alive), default=0.0) * 1e3, 1),
        "livez_refused": sum(sample.kind != "ok" for sample in alive),
        "honest": len(here),
        "honest_refused": sum(sample.kind != "ok" for sample in here),
        "first_token_ms": _first_tokens(here),
        "peak_mib": _mib([weight for weight in seen.weights if begin <= weight.at < end]),
    }
    if "burnt" in phase:
        found["burnt"] = _phase(phase["burnt"], seen)
    return found


def _first_tokens(samples: Sequence[Sample]) -> dict[str, float | None]:
    """Of those that were answered."""
    answered = [sample for sample in samples if sample.kind == "ok"]
    found = {f"p{p}": _percentile(answered, p) for p in (50, 99)}
    for transport in TRANSPORTS:
        of_it = [sample for sample in answered if sample.transport == transport]
        found[f"{transport}_p99"] = _percentile(of_it, 99)
    return found


def _percentile(samples: Sequence[Sample], percent: float) -> float | None:
    """In milliseconds."""
    if not samples:
        return None
    return round(percentile([sample.seconds for sample in samples], percent) * 1e3, 1)


def _mib(weights: Sequence[Weight]) -> int:
    return round(max((weight.bytes for weight in weights), default=0.0) / 2**20)


def beyond(figures: Mapping[str, Any]) -> list[str]:
    """What is not as it has to be."""
    idle = figures["idle_first_token_ms"]["p99"]
    found = [fault for phase in figures["phases"] for fault in _faults(phase, idle)]
    memory = figures["memory_mib"]
    if memory["peak"] > GOALS["peak_mib"]:
        found.append(f"memory was {memory['peak']} MiB at most")
    if memory["end"] - memory["before"] > GOALS["kept_mib"]:
        found.append(f"memory was {memory['before']} MiB and is {memory['end']} MiB")
    return found


def _faults(phase: Mapping[str, Any], idle: float) -> list[str]:
    found, name = [], phase["phase"]
    if phase["livez_worst_ms"] > GOALS["livez_ms"] or phase["livez_refused"]:
        found.append(f"{name}: /livez took {phase['livez_worst_ms']} ms at most")
    if any(phase["left"].values()):
        found.append(f"{name}: {phase['left']} are left")
    p99 = phase["first_token_ms"]["p99"]
    if phase["honest_refused"] or p99 is None or p99 > GOALS["times_idle"] * idle:
        found.append(f"{name}: p99 {p99} ms, {phase['honest_refused']} refused")
    for attack, answers in phase["answers"].items():
        wrong = {kind for kind in answers if kind not in ANSWERS or kind == PATIENT.get(attack)}
        found += [f"{name}: {answers[kind]} of {attack} are {kind}" for kind in sorted(wrong)]
    return found
