"""Sweeps in the messages of ``pythia.v1``, in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pythia_bento.errors import PythiaError
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.sweep import PLAIN, Checkpoint, Done, End, Event, Failed, Row, Start
from pythia_bento.server.grpc.messages import FINISH_REASONS, fields_of, prompt_of, sampling_of

MAX_ROWS = 256  # of a message


def body(request: pb.SweepRequest) -> dict[str, Any]:
    """As JSON would have it, to be validated."""
    told = {name: getattr(request, name) for name in ("model", "steps") if getattr(request, name)}
    if request.models:
        told["models"] = list(request.models)
    if request.HasField("priority"):
        told["priority"] = request.priority
    if kind := request.WhichOneof("task"):
        task = getattr(request, kind)
        fields = sampling_of(task.sampling) if kind == "generate" else fields_of(task)
        told["task"] = {"type": kind, **fields}
    return told


def item(one: pb.SweepItem) -> dict[str, Any]:
    """The same of an item."""
    told: dict[str, Any] = {"id": one.id} if one.HasField("id") else {}
    for name in ("prompt", "continuation"):
        if one.HasField(name):
            told[name] = prompt_of(getattr(one, name))
    return told


def messages(batch: Sequence[Event]) -> Iterator[pb.SweepEvent]:
    """Events in order, consecutive rows of a checkpoint together."""
    rows = pb.SweepRows()
    for event in batch:
        if rows.rows and not (isinstance(event, Row) and _has_room(rows, event)):
            yield pb.SweepEvent(rows=rows)
            rows = pb.SweepRows()
        if isinstance(event, Row):
            rows.checkpoint = event.checkpoint
            rows.rows.append(_row(event))
        else:
            yield _EVENTS[type(event)](event)
    if rows.rows:
        yield pb.SweepEvent(rows=rows)


def _has_room(rows: pb.SweepRows, row: Row) -> bool:
    return rows.checkpoint == row.checkpoint and len(rows.rows) < MAX_ROWS


def _row(row: Row) -> pb.SweepRow:
    told = {name: value for name in PLAIN if (value := getattr(row, name)) is not None}
    made = pb.SweepRow(item=row.item, **told, finish_reason=FINISH_REASONS[row.finish_reason])
    if row.token_ids is not None:
        tokens = pb.SweepTokens(ids=row.token_ids, logprobs=row.logprobs, ranks=row.ranks)
        made.tokens.CopyFrom(tokens)
    if row.error is not None:
        made.error.CopyFrom(_error(row.error))
    return made


def _checkpoint(told: Checkpoint) -> pb.SweepEvent:
    return pb.SweepEvent(checkpoint=pb.SweepCheckpoint(**asdict(told)))


def _failed(told: Failed) -> pb.SweepEvent:
    failed = pb.SweepFailed(checkpoint=told.checkpoint, model=told.model, error=_error(told.error))
    return pb.SweepEvent(failed=failed)


_EVENTS: dict[type[Any], Callable[[Any], pb.SweepEvent]] = {
    Start: lambda told: pb.SweepEvent(start=pb.SweepStart(**asdict(told))),
    Checkpoint: _checkpoint,
    Done: lambda told: pb.SweepEvent(done=pb.SweepDone(**asdict(told))),
    Failed: _failed,
    End: lambda told: pb.SweepEvent(end=pb.SweepEnd(**asdict(told))),
}


def _error(error: PythiaError) -> pb.Error:
    return pb.Error(code=error.code, message=error.message, param=error.param or "")
