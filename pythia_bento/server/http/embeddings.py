"""``/v1/embeddings`` as OpenAI has it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pythia_bento.handlers.embeddings import Vector
from pythia_bento.handlers.embeddings import embeddings as embed
from pythia_bento.protocol.embeddings import EmbeddingsRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.served import loaded
from pythia_bento.server.http.body import read_json
from pythia_bento.server.http.json_answer import json_in_pieces
from pythia_bento.telemetry.calls import current_call

AT_ONCE = 4  # vectors that are written at once: at most some 20,000 numbers


async def embeddings(request: HttpRequest) -> Response:
    """POST ``/v1/embeddings``."""
    runner = loaded(request.app.state.runner)
    body = parse(EmbeddingsRequest, await read_json(request, runner.limits))
    served = await runner.served(body.model)
    if call := current_call():
        call.operation = "embeddings"
    found = await embed(served, body)
    count = found.num_prompt_tokens
    head = {
        "object": "list",
        "model": served.info.id,
        "system_fingerprint": served.info.fingerprint,
        "pooling": body.pooling,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
    is_text = body.encoding_format == "base64"
    return await json_in_pieces(head, AT_ONCE, data=_data(found.vectors, is_text))


def _data(vectors: Sequence[Vector], is_text: bool) -> Iterator[dict[str, Any]]:
    for index, vector in enumerate(vectors):
        shown = _base64(vector) if is_text else _numbers(vector)
        yield {"object": "embedding", "index": index, "embedding": shown}


def _base64(vector: Vector) -> str:
    """Of float32, little-endian, which is what OpenAI's clients read."""
    return base64.b64encode(vector.tobytes()).decode()


def _numbers(vector: Vector) -> orjson.Fragment:
    """Numbers that are the same float32 when read."""
    return orjson.Fragment(orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))
