"""``/v1/sweep``: a row for each text and checkpoint, as lines, events or Arrow's batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pythia_bento.errors import InvalidRequest, PythiaError
from pythia_bento.protocol.errors import error_body
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.served import loaded
from pythia_bento.runtime.turns import Turns
from pythia_bento.server.http.body import read_json
from pythia_bento.server.http.json_answer import PIECE_BYTES
from pythia_bento.server.http.sse import DONE, event
from pythia_bento.server.http.streamed_answer import StreamedAnswer
from pythia_bento.server.http.sweep_arrow import ARROW, check_arrow, record_batches
from pythia_bento.server.sweeping import SweepAnswer
from pythia_bento.sweep.inside_task import ActivationsTask
from pythia_bento.sweep.spec import SweepRequest

LINES, EVENTS = "application/x-ndjson", "text/event-stream"


@dataclass(frozen=True, slots=True)
class Format:
    """How events are written."""

    write: Callable[[Mapping[str, Any]], bytes]
    silence: bytes  # where there is nothing to tell, for proxies that close what is silent
    end: bytes  # behind an answer that is whole


FORMATS = {
    LINES: Format(lambda told: orjson.dumps(told) + b"\n", b"", b""),
    EVENTS: Format(event, b": nothing new\n\n", DONE),
}


async def sweep(request: HttpRequest) -> Response:
    """POST ``/v1/sweep``."""
    runner = loaded(request.app.state.runner)
    spec = parse(SweepRequest, await read_json(request, runner.limits))
    kind = accepted(request.headers.get("accept", ""))
    if kind == ARROW:
        if isinstance(spec.task, ActivationsTask):
            raise InvalidRequest(
                f"activations are no columns; accept {LINES} or {EVENTS}", param="accept"
            )
        await check_arrow()
    answer = await SweepAnswer.begin(runner, spec, request.app.state.check_open)
    pieces = record_batches(answer) if kind == ARROW else _pieces(answer, FORMATS[kind])
    return StreamedAnswer(pieces, kind, answer.close)


def accepted(header: str) -> str:
    """The media type to answer with: lines, unless others are accepted and they are not."""
    kinds = {part.partition(";")[0].strip().lower() for part in header.split(",")}
    return next((kind for kind in (LINES, ARROW, EVENTS) if kind in kinds), LINES)


async def _pieces(answer: SweepAnswer, format: Format) -> AsyncIterator[bytes]:
    turns, piece = Turns(), bytearray()
    try:
        async for batch in answer.batches():
            piece += b"" if batch else format.silence
            for told in batch:
                piece += format.write(told.as_dict())
                await turns.take()
                if len(piece) > PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
            if piece:
                yield bytes(piece)
                piece.clear()
    except PythiaError as error:
        yield bytes(piece) + format.write({"event": "error", **error_body(error)})
    else:
        yield format.end
