"""What is told of events, in the names of all transports."""

from __future__ import annotations

import json

from pythia_bento.errors import CheckpointError, InvalidRequest
from pythia_bento.sweep.events import Checkpoint, Done, End, Failed, Row, Seconds, Start


def test_events_are_what_json_can_hold() -> None:
    events = [
        Start("key", 2, 3),
        Checkpoint(0, "bundled@step8", 8, 16, None, "w", "print", ("bundled@step9",), False),
        Done(0, Seconds(0.5, 0.25, 0.125)),
        Failed(1, "bundled@step9", CheckpointError("damaged", param="model")),
        End(1, 1),
    ]
    assert [json.loads(json.dumps(event.as_dict())) for event in events] == [
        {"event": "start", "key": "key", "checkpoints": 2, "items": 3},
        {
            "event": "checkpoint",
            "index": 0,
            "model": "bundled@step8",
            "step": 8,
            "tokens_seen": 16,
            "commit": None,
            "weights": "w",
            "system_fingerprint": "print",
            "same_weights": ["bundled@step9"],
            "computed": False,
        },
        {
            "event": "done",
            "checkpoint": 0,
            "seconds": {"wait": 0.5, "load": 0.25, "compute": 0.125},
        },
        {
            "event": "error",
            "checkpoint": 1,
            "model": "bundled@step9",
            "error": {
                "message": "damaged",
                "type": "server_error",
                "param": "model",
                "code": "checkpoint_error",
            },
        },
        {"event": "end", "done": 1, "failed": 1},
    ]


def test_rows_have_what_is_told() -> None:
    scored = Row(
        checkpoint=4,
        item=0,
        id="a",
        logprob=-11.75,
        num_tokens=1,
        greedy_tokens=0,
        is_greedy=False,
        token_ids=(7785,),
        logprobs=(-11.75,),
        ranks=(8123,),
    )
    assert scored.as_dict() == {
        "event": "row",
        "checkpoint": 4,
        "item": 0,
        "id": "a",
        "logprob": -11.75,
        "num_tokens": 1,
        "greedy_tokens": 0,
        "is_greedy": False,
        "tokens": [{"id": 7785, "logprob": -11.75, "rank": 8123}],
    }
    made = Row(checkpoint=0, item=1, text="", finish_reason="stop", token_ids=())
    assert made.as_dict() == {
        "event": "row",
        "checkpoint": 0,
        "item": 1,
        "text": "",
        "finish_reason": "stop",
        "tokens": [],
    }
    failed = Row(checkpoint=0, item=2, error=InvalidRequest("too long", param="prompt"))
    assert failed.as_dict()["error"]["message"] == "too long"
