"""``/generate`` as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pythia_bento.engine.params import new_request_id
from pythia_bento.errors import PythiaError
from pythia_bento.handlers.requests import make_request
from pythia_bento.handlers.streamed import StreamedAnswer
from pythia_bento.protocol.bodies import GenerateRequest
from pythia_bento.protocol.errors import error_body
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.streams import AsyncStream
from pythia_bento.server.http.sse import DONE, EventStream, event


async def stream(runner: PythiaRunner, body: GenerateRequest) -> EventStream:
    """``generate`` as events: the parts of the answer, or an error as the last one."""
    request = await make_request(runner, new_request_id(), body.prompt, body)
    outputs = runner.submit([request])
    return EventStream(_events(outputs, StreamedAnswer(runner, request, body, outputs)), outputs)


async def _events(stream: AsyncStream, answer: StreamedAnswer) -> AsyncIterator[bytes]:
    try:
        async for outputs in stream:
            if part := answer.part(outputs):
                yield event(part) + (DONE if "summary" in part else b"")
    except PythiaError as error:
        yield event(error_body(error))
