from __future__ import annotations

from typing import Any

from bench.soak.abuse import beyond
from bench.soak.attacks import ATTACKS, TOGETHER

IDLE: dict[str, Any] = {
    **{"phase": "idle", "livez_worst_ms": 5.0, "livez_refused": 0, "honest_refused": 0},
    **{"first_token_ms": {"p50": 10.0, "p99": 20.0}, "left": {"running": 0}},
}


def figures(peak: float = 900, **attack: Any) -> dict[str, Any]:
    return {"memory_mib": {"peak": peak}, "phases": [IDLE, IDLE | {"phase": "attack"} | attack]}


def test_what_is_beyond_is_named() -> None:
    assert beyond(figures()) == []
    for words, found in (
        ("/livez took 251", figures(livez_worst_ms=251.0)),
        ("/livez took 5", figures(livez_refused=1)),
        ("p99 61", figures(first_token_ms={"p50": 1.0, "p99": 61.0})),
        ("p99 None", figures(first_token_ms={"p50": None, "p99": None})),
        ("1 refused", figures(honest_refused=1)),
        ("are left", figures(left={"running": 1})),
        ("memory was 1300", figures(peak=1300)),
    ):
        [sentence] = beyond(found)
        assert words in sentence


def test_eight_come_together() -> None:
    assert len(TOGETHER) == 8 and set(TOGETHER) < set(ATTACKS)


def test_the_quietest_time_is_what_an_idle_server_does() -> None:
    """Where others disturb the machine while nobody attacks, that is no reason to be slower."""
    quiet = {"first_token_ms": {"p50": 5.0, "p99": 10.0}}
    assert beyond(figures(first_token_ms={"p50": 1.0, "p99": 30.0}, burnt=quiet)) == []
    [sentence] = beyond(figures(first_token_ms={"p50": 1.0, "p99": 31.0}, burnt=quiet))
    assert "p99 31" in sentence
