"""The events of a sweep, as ``/v1/sweep`` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pythia_bento.client.failures import of_json
from pythia_bento.client.transport import known
from pythia_bento.protocol.sweep import (
    Checkpoint,
    Done,
    End,
    Event,
    Failed,
    Row,
    Seconds,
    Start,
)


def events(data: bytes) -> list[Event]:
    """The one event of a line; raises the error that ended the sweep as a whole."""
    body = json.loads(data)
    kind = body["event"]
    if kind == "error" and body.get("checkpoint") is None:
        raise of_json(body["error"])
    return [_EVENTS[kind](body)]


def _checkpoint(body: Mapping[str, Any]) -> Checkpoint:
    same = {"same_weights": tuple(body["same_weights"])}
    return Checkpoint(**known(Checkpoint, body) | same)


def _row(body: Mapping[str, Any]) -> Row:
    told = known(Row, body)
    if "tokens" in body:
        told |= _columns(body["tokens"])
    if "run" in body:
        from pythia_bento.protocol.activations import from_dict  # who asks for it has numpy

        told["run"] = from_dict(body["run"])
    if "error" in body:
        told["error"] = of_json(body["error"])
    return Row(**told)


def _columns(tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A column is None where no token has it, and empty where there are no tokens."""
    return {
        column: tuple(token[name] for token in tokens)
        for column, name in (("token_ids", "id"), ("logprobs", "logprob"), ("ranks", "rank"))
        if all(name in token for token in tokens)
    }


def _done(body: Mapping[str, Any]) -> Done:
    return Done(body["checkpoint"], Seconds(**known(Seconds, body["seconds"])))


def _failed(body: Mapping[str, Any]) -> Failed:
    return Failed(body["checkpoint"], body["model"], of_json(body["error"]))


_EVENTS: dict[str, Callable[[Mapping[str, Any]], Event]] = {
    "start": lambda body: Start(**known(Start, body)),
    "checkpoint": _checkpoint,
    "row": _row,
    "done": _done,
    "error": _failed,
    "end": lambda body: End(**known(End, body)),
}
