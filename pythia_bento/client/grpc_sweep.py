"""A sweep in the messages of ``pythia.v1``, out and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pythia_bento.client.failures import BY_CODE, failure
from pythia_bento.errors import PythiaError
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.sweep import (
    PLAIN,
    Checkpoint,
    Done,
    End,
    Event,
    Failed,
    Row,
    Seconds,
    Start,
)
from pythia_bento.protocol.types import FinishReason

FINISH_REASONS: dict[int, FinishReason | None] = {
    pb.FINISH_REASON_UNSPECIFIED: None,
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
}


def events(message: pb.SweepEvent) -> list[Event]:
    """Those of a message: many rows, or one of another kind."""
    kind = message.WhichOneof("event")
    if kind is None:
        return []  # of a server that is newer
    if kind == "rows":
        return [_row(message.rows.checkpoint, row) for row in message.rows.rows]
    return [_EVENTS[kind](getattr(message, kind))]


def _checkpoint(told: pb.SweepCheckpoint) -> Checkpoint:
    return Checkpoint(
        index=told.index,
        model=told.model,
        step=told.step if told.HasField("step") else None,
        tokens_seen=told.tokens_seen if told.HasField("tokens_seen") else None,
        commit=told.commit or None,
        weights=told.weights,
        system_fingerprint=told.system_fingerprint,
        same_weights=tuple(told.same_weights),
        computed=told.computed,
    )


def _row(checkpoint: int, row: pb.SweepRow) -> Row:
    told = {name: getattr(row, name) for name in PLAIN if row.HasField(name)}
    if row.HasField("tokens"):
        told |= _columns(row.tokens)
    return Row(
        checkpoint=checkpoint,
        item=row.item,
        finish_reason=FINISH_REASONS[row.finish_reason],
        error=_error(row.error) if row.HasField("error") else None,
        **told,
    )


def _columns(tokens: pb.SweepTokens) -> dict[str, Any]:
    """A column is None where no token has it, and empty where there are no tokens."""
    found: dict[str, Any] = {
        "token_ids": tokens.ids,
        "logprobs": tokens.logprobs,
        "ranks": tokens.ranks,
    }
    return {name: tuple(column) for name, column in found.items() if column or not tokens.ids}


def _done(told: pb.SweepDone) -> Done:
    seconds = told.seconds
    return Done(told.checkpoint, Seconds(seconds.wait, seconds.load, seconds.compute))


def _failed(told: pb.SweepFailed) -> Failed:
    return Failed(told.checkpoint, told.model, _error(told.error))


_EVENTS: Mapping[str, Callable[[Any], Event]] = {
    "start": lambda told: Start(told.key, told.checkpoints, told.items),
    "checkpoint": _checkpoint,
    "done": _done,
    "failed": _failed,
    "end": lambda told: End(told.done, told.failed),
}


def _error(error: pb.Error) -> PythiaError:
    return failure(BY_CODE.get(error.code), error.message, error.param or None, None)
