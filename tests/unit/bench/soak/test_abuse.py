from __future__ import annotations

from typing import Any

from bench.soak.abused import Witnesses, beyond, figures_of
from bench.soak.attacks import ATTACKS, TOGETHER
from bench.soak.witness import Sample, Weight

IDLE: dict[str, Any] = {
    **{"phase": "idle", "livez_worst_ms": 5.0, "livez_refused": 0, "honest_refused": 0},
    **{"first_token_ms": {"p50": 10.0, "p99": 20.0}, "left": {"running": 0}, "answers": {}},
}


def figures(peak: float = 900, end: float = 500, **attack: Any) -> dict[str, Any]:
    return {
        "memory_mib": {"before": 450, "peak": peak, "end": end},
        "idle_first_token_ms": {"p99": 20.0},
        "phases": [IDLE, IDLE | {"phase": "attack"} | attack],
    }


def test_what_is_beyond_is_named() -> None:
    assert beyond(figures()) == []
    assert beyond(figures(first_token_ms={"p99": 60.0})) == []
    for words, found in (
        ("/livez took 251", figures(livez_worst_ms=251.0)),
        ("/livez took 5", figures(livez_refused=1)),
        ("p99 61", figures(first_token_ms={"p99": 61.0})),
        ("p99 None", figures(first_token_ms={"p99": None})),
        ("1 refused", figures(honest_refused=1)),
        ("are left", figures(left={"running": 1})),
        ("memory was 1300", figures(peak=1300)),
        ("memory was 450 MiB and is 700", figures(end=700)),
    ):
        [sentence] = beyond(found)
        assert words in sentence


def test_answers_that_no_attacker_may_have() -> None:
    answers = {"many_scores": {"200": 1, "429": 2, "DEADLINE_EXCEEDED": 1, "left": 1}}
    assert beyond(figures(answers=answers)) == []
    for kind in ("500", "UNAVAILABLE", "CANCELLED", "ReadError"):
        [sentence] = beyond(figures(answers={"many_scores": {kind: 3}}))
        assert sentence == f"attack: 3 of many_scores are {kind}"
    [sentence] = beyond(figures(answers={"bursts_over_grpc": {"OK": 1, "DEADLINE_EXCEEDED": 3}}))
    assert sentence == "attack: 3 of bursts_over_grpc are DEADLINE_EXCEEDED"


def test_eight_come_together() -> None:
    assert len(TOGETHER) == 8 and set(TOGETHER) < set(ATTACKS)


def test_what_the_witnesses_saw_belongs_to_its_phase() -> None:
    phases = [
        {"phase": "idle", "between": (0, 1, 1)},
        {"phase": "attack", "between": (1, 2, 3), "burnt": {"between": (4, 5, 5)}},
        {"phase": "idle", "between": (6, 7, 7)},
    ]
    firsts = [
        *(Sample(0.5, 0.01, "ok"), Sample(6.5, 0.02, "ok", "grpc")),
        *(Sample(1.5, 0.03, "ok"), Sample(1.7, 0.9, "overloaded"), Sample(2.5, 0.8, "ok")),
        Sample(4.5, 0.04, "ok", "grpc"),
    ]
    lives = [Sample(2.5, 0.2, "ok"), Sample(0.5, 0.3, "503")]
    weights = [Weight(at, size * 2**20) for at, size in ((0.5, 10), (2.5, 30), (7.0, 20))]
    found = figures_of(phases, Witnesses(lives, firsts, weights))
    assert found["memory_mib"] == {"before": 10, "peak": 30, "end": 20}
    assert found["idle_first_token_ms"] == {
        **{"p50": 10.0, "p99": 20.0, "http_p99": 10.0, "grpc_p99": 20.0}
    }
    first, attack, _ = found["phases"]
    assert (first["livez_worst_ms"], first["livez_refused"]) == (300.0, 1)
    assert (attack["livez_worst_ms"], attack["peak_mib"]) == (200.0, 30)
    assert (attack["honest"], attack["honest_refused"]) == (2, 1)
    assert (attack["first_token_ms"]["p99"], attack["burnt"]["first_token_ms"]["p99"]) == (30.0, 40)
