"""What a client says and reads of a sweep."""

from __future__ import annotations

import json

import pytest

from pythia_bento.client import SweepItem, grpc_messages, http_messages, http_sweep
from pythia_bento.errors import DeadlineExceeded, InvalidRequest, ModelNotFound, PythiaError
from pythia_bento.protocol.parsing import parse
from pythia_bento.protocol.sweep import Failed, Row
from pythia_bento.server.grpc import sweep_messages
from pythia_bento.sweep.spec import SweepRequest
from tests.unit.client.sweep_events import EVENTS

ITEMS = [SweepItem("a", " b", id="c"), SweepItem((5, 6))]
ASKED = [
    {"items": ITEMS},
    {"items": ITEMS, "model": "pythia-14m", "steps": [0, 512], "priority": 0},
    {"items": ITEMS, "steps": "1000:3000:1000", "task": {"type": "score", "tokens": True}},
    {"items": ITEMS, "models": ["a@b", "c"], "task": {"type": "extract", "share": True}},
    {"items": ITEMS, "task": {"type": "generate", "stop": "x", "logit_bias": {5: -1.0}}},
]


@pytest.mark.parametrize("asked", ASKED)
def test_both_transports_ask_for_the_same(asked: dict[str, object]) -> None:
    over_http = parse(SweepRequest, json.loads(http_messages.sweep(asked).request))
    request = grpc_messages.sweep(asked).request
    items = [sweep_messages.item(item) for item in request.items]
    over_grpc = parse(SweepRequest, {**sweep_messages.body(request), "items": items})
    assert over_http == over_grpc
    assert over_http.items[0].id == "c" and over_http.key == over_grpc.key


def test_activations_of_a_sweep_are_asked_for_over_http() -> None:
    asked = {"items": ITEMS, "task": {"type": "activations", "capture": ["hook_embed"]}}
    assert http_messages.sweep(asked).request
    with pytest.raises(InvalidRequest, match=r"task\.type is 'activations', which .* over HTTP;"):
        grpc_messages.sweep(asked)


def test_every_event_is_read_as_it_was_told() -> None:
    lines = [json.dumps(event.as_dict()).encode() for event in EVENTS]
    assert [event for line in lines for event in http_sweep.events(line)] == EVENTS


def test_errors_are_read() -> None:
    error = ModelNotFound("nowhere", param="model")
    for told in (Failed(3, "toy", error), Row(checkpoint=3, item=1, error=error)):
        [found] = http_sweep.events(json.dumps(told.as_dict()).encode())
        assert isinstance(found, (Failed, Row)) and isinstance(found.error, ModelNotFound)
        assert (found.error.message, found.error.param) == ("nowhere", "model")


def test_an_error_of_the_whole_is_raised() -> None:
    error = {"message": "late", "param": None, "code": "deadline_exceeded"}
    with pytest.raises(DeadlineExceeded, match="late"):
        http_sweep.events(json.dumps({"event": "error", "error": error}).encode())


def test_nonsense_is_an_error_of_the_tree() -> None:
    operation = http_messages.sweep(ASKED[0])
    for line in (b"{}", b"[]", b'{"event": "dream"}', b'{"event": "row"}', b"x"):
        with pytest.raises(PythiaError, match="cannot be read"):
            operation.result(line)
