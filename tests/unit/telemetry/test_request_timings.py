from __future__ import annotations

from typing import Any

import pytest

from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.errors import EngineUnavailable
from pythia_bento.telemetry import request_timings
from pythia_bento.telemetry.calls import CallContext, new_call
from pythia_bento.telemetry.request_timings import Phases, RequestTimings, RequestWatch

NAMES = {
    "first": "time_to_first_token_seconds",
    "between": "inter_token_latency_seconds",
    "total": "e2e_request_latency_seconds",
    "queue": "request_queue_time_seconds",
    "prefill": "request_prefill_time_seconds",
    "decode": "request_decode_time_seconds",
}


class World:
    """A watch, and a clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.watch = RequestWatch()
        self.timings: dict[str, RequestTimings] = {}
        monkeypatch.setattr(request_timings.time, "monotonic", lambda: self.now)

    def arrived(self, *ids: str, n: int = 1, call: CallContext | None = None) -> None:
        for id in ids:
            request = Request(id, (1, 2, 3), SamplingParams(), n)
            self.timings[id] = RequestTimings(request, self.now)
            if call is not None:
                call.requests.append(self.timings[id])

    def saw(self, now: float, *outputs: SequenceOutput) -> None:
        self.now = now
        self.watch.on_outputs([(self.timings[output.request_id], output) for output in outputs])

    def phases(self, id: str) -> Phases:
        assert self.timings[id].has_ended
        return self.timings[id].phases()

    def found(self) -> dict[str, tuple[int, float]]:
        """How many values each histogram has, and their sum."""
        histograms = {short: self.watch.histograms[name] for short, name in NAMES.items()}
        return {name: (sum(h.counts), round(h.sum, 9)) for name, h in histograms.items()}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def out(id: str, index: int = 0, tokens: int = 1, **fields: Any) -> SequenceOutput:
    return SequenceOutput(id, index, [7] * tokens, "", **{"started": 101.0} | fields)


def test_the_times_of_a_request(world: World) -> None:
    world.arrived("a")
    world.saw(103.0, out("a", num_cached_tokens=2))
    world.saw(104.0, out("a"))
    assert not world.timings["a"].has_ended
    world.saw(106.0, out("a", tokens=4, finish_reason="stop"))
    assert world.phases("a") == {"queue": 1.0, "prefill": 2.0, "decode": 3.0, "total": 6.0}
    assert world.found() == {
        "first": (1, 3.0),
        "between": (5, 3.0),  # 1 s, and four tokens that share 2 s
        "total": (1, 6.0),
        "queue": (1, 1.0),
        "prefill": (1, 2.0),
        "decode": (1, 3.0),
    }
    assert world.watch.ended == {"stop": 1, "length": 0, "abort": 0, "error": 0}


def test_outputs_of_a_step_differ_in_age_and_size(world: World) -> None:
    world.arrived("a", "b", "c", "d")
    world.saw(102.0, out("a"), out("b"))
    world.saw(103.0, out("c"), out("d"))
    world.saw(105.0, out("a"), out("c"), out("b", tokens=3), out("d"))
    assert world.found()["between"] == (6, 3.0 + 2.0 + 3.0 + 2.0)


def test_continuations_end_one_by_one(world: World) -> None:
    world.arrived("a", n=2)
    world.saw(102.0, out("a", 0, finish_reason="length"))
    world.saw(103.0, out("a", 1))
    assert not world.timings["a"].has_ended
    world.saw(105.0, out("a", 1, finish_reason="stop"))
    assert world.phases("a") == {"queue": 1.0, "prefill": 1.0, "decode": 3.0, "total": 5.0}
    assert world.found()["between"] == (1, 2.0)
    assert world.found()["total"] == (1, 5.0)
    assert world.watch.ended == {"stop": 1, "length": 1, "abort": 0, "error": 0}


def test_scoring_has_no_first_token(world: World) -> None:
    world.arrived("a")
    world.saw(103.0, out("a", tokens=0, finish_reason="length"))
    assert world.phases("a") == {"queue": 1.0, "prefill": 2.0, "decode": 0.0, "total": 3.0}
    found = world.found()
    assert (found["first"], found["between"], found["decode"]) == ((0, 0), (0, 0), (0, 0))
    assert (found["queue"], found["prefill"], found["total"]) == ((1, 1.0), (1, 2.0), (1, 3.0))


def test_a_request_that_was_given_up(world: World) -> None:
    world.arrived("a", n=3)
    world.saw(102.0, out("a", 0, finish_reason="stop"))
    world.watch.on_abort(world.timings["a"])
    world.watch.on_abort(world.timings["a"])
    assert world.watch.ended == {"stop": 1, "length": 0, "abort": 2, "error": 0}
    assert world.found()["total"] == (0, 0)


def test_a_request_that_failed_before_its_first_step(world: World) -> None:
    world.arrived("a")
    error = EngineUnavailable("the engine died")
    world.saw(102.0, out("a", tokens=0, started=0.0, finish_reason="error", error=error))
    assert world.watch.ended["error"] == 1
    assert set(world.found().values()) == {(0, 0)}


def test_a_call_knows_its_requests(world: World) -> None:
    call = new_call("me")
    world.arrived("a", "b", call=call)
    world.arrived("c")
    world.saw(103.0, out("a", num_cached_tokens=2), out("c"))
    call.began = 100.5
    assert call.log_fields() == {
        "requests": 2,
        "prompt_tokens": 6,
        "cached_tokens": 2,
        "generated_tokens": 1,
        "finish_reasons": ["abort"],
        "first_output_ms": 2500.0,
    }
    world.saw(104.0, out("a", finish_reason="stop"), out("b", finish_reason="length"))
    assert call.log_fields()["finish_reasons"] == ["length", "stop"]
    a, b = call.requests
    assert a.steps and (a.steps.steps, a.steps.sequences) == (1, 2)  # after its first token
    assert b.steps and b.steps.steps == 0
