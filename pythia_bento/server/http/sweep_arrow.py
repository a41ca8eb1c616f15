"""A sweep as a stream of Arrow's record batches, with the columns of ``sweep.columns``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from io import BytesIO
from typing import Any

from pythia_bento.errors import InvalidRequest, PythiaError
from pythia_bento.protocol.sweep import Checkpoint, Event, Failed, Row, Start
from pythia_bento.server.sweeping import SweepAnswer
from pythia_bento.sweep.columns import COLUMNS, Values, model_id, of_checkpoint, of_row
from pythia_bento.sweep.parquet import NoPyarrow, arrow, schema

ARROW = "application/vnd.apache.arrow.stream"


async def check_arrow() -> None:
    """Import pyarrow, which takes long; raises InvalidRequest where there is none."""
    try:
        await asyncio.to_thread(arrow)
    except NoPyarrow:
        raise InvalidRequest(
            f"this server has no pyarrow and cannot answer with {ARROW}; accept "
            "application/x-ndjson or text/event-stream",
            param="accept",
        ) from None


async def record_batches(answer: SweepAnswer) -> AsyncIterator[bytes]:
    """Pieces of the stream; what fails is a row without ``item`` that has ``error``."""
    stream = _Stream()
    try:
        async for batch in answer.batches():
            if piece := stream.write(batch):
                yield piece
    except PythiaError as error:
        yield stream.fail(error)
    yield stream.end()


class _Stream:
    """Writes rows of several checkpoints, one after another."""

    def __init__(self) -> None:
        self._arrow = arrow()
        self._sink = BytesIO()
        self._schema = schema(self._arrow)
        self._writer: Any = None  # made at the start, which its metadata tells
        self._first: Values = ()

    def write(self, batch: Sequence[Event]) -> bytes:
        """Nothing where there are no rows in it."""
        if batch and isinstance(batch[0], Start):
            self._begin(batch[0].key)
        return self._put(list(self._rows(batch)))

    def fail(self, error: PythiaError) -> bytes:
        """The whole sweep has ended so."""
        return self._put([_failure(None, None, error)])

    def end(self) -> bytes:
        """What marks the end."""
        self._writer.close()
        return self._told()

    def _begin(self, key: str) -> None:
        self._schema = self._schema.with_metadata({"key": key})
        sink = self._arrow.PythonFile(self._sink, mode="w")
        self._writer = self._arrow.ipc.new_stream(sink, self._schema)

    def _rows(self, batch: Sequence[Event]) -> Iterator[Values]:
        for event in batch:
            if isinstance(event, Checkpoint):
                self._first = of_checkpoint(event)
            elif isinstance(event, Row):
                yield of_row(self._first, event)
            elif isinstance(event, Failed):
                model = model_id(event.model)
                yield _failure(model.name, model.revision, event.error)

    def _put(self, rows: Sequence[Values]) -> bytes:
        if rows:
            pa = self._arrow
            arrays = [
                pa.array([row[place] for row in rows], field.type)
                for place, field in enumerate(self._schema)
            ]
            self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        return self._told()

    def _told(self) -> bytes:
        """What was written since this was asked last."""
        told = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return told


def _failure(name: str | None, revision: str | None, error: PythiaError) -> Values:
    return (name, revision, *(None,) * (len(COLUMNS) - 3), error.message)
