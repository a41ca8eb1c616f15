"""``/generate``, ``/generate_stream`` and ``/score``: to the engine without BentoML's batcher.

BentoML's own routes for them, which the service declares, answer where it routes requests.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pythia_bento.errors import PythiaError
from pythia_bento.handlers.generate import generate
from pythia_bento.handlers.score import scored
from pythia_bento.handlers.streamed import StreamedAnswer
from pythia_bento.protocol.bodies import GenerateRequest, GenerateStreamRequest, ScoreRequest
from pythia_bento.protocol.errors import error_body
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.served import loaded
from pythia_bento.server.http.app import make_app
from pythia_bento.server.http.body import read_json
from pythia_bento.server.http.json_answer import PIECE_BYTES, json_in_pieces
from pythia_bento.server.http.json_tokens import json_tokens
from pythia_bento.server.http.sse import DONE, EventStream, event, in_ascii


def create_app() -> Starlette:
    """To be mounted at the root; see ``make_app``."""
    return make_app(
        [
            Route("/generate", _generate, methods=["POST"]),
            Route("/generate_stream", _generate_stream, methods=["POST"]),
            Route("/score", _score, methods=["POST"]),
        ]
    )


async def _generate(request: HttpRequest) -> Response:
    runner = loaded(request.app.state.runner)
    body = parse(GenerateRequest, await read_json(request, runner.limits))
    if body.stream:
        return await stream(runner, body)
    answer: dict[str, Any] = {**await generate(await runner.served(body.model), body)}
    lists = {name: answer.pop(name) for name in ("outputs", "prompt_tokens") if name in answer}
    return await json_in_pieces(answer, 1, **lists)


async def _generate_stream(request: HttpRequest) -> Response:
    runner = loaded(request.app.state.runner)
    body = parse(GenerateStreamRequest, await read_json(request, runner.limits))
    answer = await StreamedAnswer.begin(await runner.served(body.model), body)
    return EventStream((in_ascii(event) async for event in _events(answer)), answer.stream)


async def _score(request: HttpRequest) -> Response:
    runner = loaded(request.app.state.runner)
    body = parse(ScoreRequest, await read_json(request, runner.limits))
    results = await scored(runner, body.items, body.model, show=json_tokens)
    return StreamingResponse(_as_list(results), media_type="application/json")


async def _as_list(results: AsyncIterator[object]) -> AsyncIterator[bytes]:
    """A JSON array in pieces: thousands of scores at once would keep the event loop for seconds."""
    piece, separator = bytearray(), b"["
    async for result in results:
        piece += separator + orjson.dumps(result)
        separator = b","
        if len(piece) > PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece) + (b"[]" if separator == b"[" else b"]")


async def stream(runner: PythiaRunner, body: GenerateStreamRequest) -> EventStream:
    """``generate`` as events: the parts of the answer, or an error as the last one."""
    answer = await StreamedAnswer.begin(await runner.served(body.model), body)
    return EventStream(_events(answer), answer.stream)


async def texts(runner: PythiaRunner, body: GenerateStreamRequest) -> AsyncGenerator[str, None]:
    """The same events one by one, as ``/generate_stream`` has them.

    Raises what refuses the request before the first. Who stops iterating ends the request.
    """
    answer = await StreamedAnswer.begin(await runner.served(body.model), body)
    try:
        async for event in _events(answer):
            yield in_ascii(event).decode()
    finally:
        answer.stream.close()


async def _events(answer: StreamedAnswer) -> AsyncIterator[bytes]:
    try:
        async for outputs in answer.stream:
            if part := await answer.part(outputs):
                yield event(part) + (DONE if "summary" in part else b"")
    except PythiaError as error:
        yield event(error_body(error))
