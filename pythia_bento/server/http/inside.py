"""``/v1/activations`` and ``/v1/patch``: the inside of a model, as files and numbers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import InvalidRequest, PayloadTooLarge
from pythia_bento.handlers.inside import activations
from pythia_bento.handlers.inside_answer import Answer
from pythia_bento.handlers.named_tensors import read_tensors
from pythia_bento.handlers.patch import patch
from pythia_bento.protocol.inside import ActivationsRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.protocol.patching import PatchRequest
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.served import loaded
from pythia_bento.runtime.turns import Turns
from pythia_bento.server.http.body import read_json, read_part
from pythia_bento.server.http.json_answer import json_in_pieces
from pythia_bento.server.http.lent import lending_of
from pythia_bento.server.http.multipart import is_multipart, parts
from pythia_bento.server.http.streamed_answer import StreamedAnswer

SAFETENSORS = "application/vnd.safetensors"
_PARTS = ("request", "tensors")
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def routes() -> list[Route]:
    """To be mounted under ``/v1``."""
    return [
        Route("/activations", _activations, methods=["POST"]),
        Route("/patch", _patch, methods=["POST"]),
    ]


async def _activations(request: HttpRequest) -> Response:
    runner = loaded(request.app.state.runner)
    data, file = await _read(request, runner)
    body = parse(ActivationsRequest, data)
    tensors = await read_tensors(file)
    served = await runner.served(body.model)
    answer = await activations(served, body, tensors)
    if body.format == "safetensors":
        return FileAnswer(answer, runner.settings.client_timeout)
    try:
        return await _as_json(answer, served.tokenizer)
    finally:
        answer.close()


async def _patch(request: HttpRequest) -> Response:
    runner = loaded(request.app.state.runner)
    body = parse(PatchRequest, await read_json(request, runner.limits))
    answer: dict[str, Any] = {**await patch(await runner.served(body.model), body)}
    values = answer.pop("values")
    return await json_in_pieces(answer, 16, values=values)


async def _read(request: HttpRequest, runner: PythiaRunner) -> tuple[Any, memoryview | None]:
    """What is asked for, and the file beside it; raises InvalidRequest and PayloadTooLarge."""
    kind = request.headers.get("content-type", "")
    if not is_multipart(kind):
        return await read_json(request, runner.limits), None
    found = await parts(await request.body(), kind, _PARTS)
    settings = runner.settings
    for name, most in zip(
        _PARTS, (settings.max_body_bytes, settings.max_tensor_bytes), strict=True
    ):
        if name in found and found[name].nbytes > most:
            raise PayloadTooLarge(
                f"{name} has {found[name].nbytes} bytes, but the limit is {most}", param=name
            )
    if "request" not in found:
        raise InvalidRequest(
            "request is required: a part with the request as JSON", param="request"
        )
    return await read_part(bytes(found["request"]), runner.limits), found.get("tensors")


async def _as_json(answer: Answer, tokenizer: Tokenizer) -> Response:
    numbers = await answer.numbers()
    texts: Mapping[str, Any] = answer.texts
    head = {
        "model": answer.model,
        "system_fingerprint": answer.system_fingerprint,
        "seed": texts["request"].get("seed"),
        "lens_tokens": await _lens_tokens(numbers, tokenizer),
        "tensors": orjson.Fragment(orjson.dumps(numbers, option=_NUMPY)),
    }
    lists = {name: texts[name] for name in ("tokens", "completions")}
    return await json_in_pieces(head, 1, **lists)


async def _lens_tokens(
    numbers: Mapping[str, np.ndarray], tokenizer: Tokenizer
) -> dict[str, list[list[str]]]:
    """The texts of what lenses found, which a reader of JSON would have to ask for."""
    turns, found = Turns(), dict[str, list[list[str]]]()
    for name in (name for name in numbers if name.endswith(":lens_ids")):
        found[name] = []
        for row in numbers[name].tolist():
            found[name].append(tokenizer.token_texts(row))
            await turns.take()
    return found


class FileAnswer(StreamedAnswer):
    """A file whose length is known, and whose memory others wait for.

    A client that does not take a piece in time is given up, whatever the system's buffers hold:
    the connection ends before the length that was announced.
    """

    def __init__(self, answer: Answer, seconds: float) -> None:
        self._pieces = answer.pieces()
        super().__init__(self._pieces, SAFETENSORS, answer.close)
        self.headers["Content-Length"] = str(answer.nbytes)
        self._seconds = seconds
        self._lending: AbstractContextManager[None] | None = None

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._lending = lending_of(scope)
        await super().__call__(scope, receive, send)

    @override
    async def stream_response(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        turns = Turns()  # who reads as fast as this writes lets nobody else have one
        with suppress(asyncio.TimeoutError), self._lending or nullcontext():
            async for piece in self._pieces:
                own = piece if self._lending else bytes(piece)
                message = {"type": "http.response.body", "body": own, "more_body": True}
                await _in_time(send(message), self._seconds)
                await turns.take()
            end = {"type": "http.response.body", "body": b"", "more_body": False}
            await _in_time(send(end), self._seconds)


async def _in_time(sending: Awaitable[None], seconds: float) -> None:
    """Raises TimeoutError, as asyncio has it."""
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(seconds):  # without a task for each piece
            await sending
    else:
        await asyncio.wait_for(sending, seconds)
