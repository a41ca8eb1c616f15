"""``bentoml.grpc.v1.BentoService``: BentoML's own contract, for stubs that exist already.

Bodies are JSON, as on ``/generate`` and ``/score`` over HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from grpc.aio import ServicerContext

from pythia_bento.errors import InvalidRequest
from pythia_bento.handlers.generate import generate
from pythia_bento.handlers.score import score
from pythia_bento.protocol.bodies import GenerateRequest, ScoreRequest
from pythia_bento.protocol.generated import bentoml_v1_pb2 as pb
from pythia_bento.protocol.generated.bentoml_v1_pb2_grpc import BentoServiceServicer
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.runner import PythiaRunner

JSON = "bentoml.io.JSON"
DOCS = {
    "generate": "Continue a prompt.",
    "score": "Log-probabilities of texts; an item that fails has `error` in its place.",
}
MAX_EXACT = 2**53  # JSON's numbers are doubles here: from there on they skip integers

Context = ServicerContext[Any, Any]


class BentoService(BentoServiceServicer):
    """Raises leaves of the exception tree, as PythiaService does."""

    def __init__(self, runner: PythiaRunner) -> None:
        self._runner = runner

    async def Call(self, request: pb.Request, context: Context) -> pb.Response:
        """``generate`` or ``score``, with HTTP's bodies."""
        if request.api_name not in DOCS:
            raise InvalidRequest(
                f"api_name must be generate or score, not {request.api_name[:100]!r}",
                param="api_name",
            )
        body = _body(request)
        timeout = context.time_remaining()
        answer: Any
        if request.api_name == "generate":
            fields = parse(GenerateRequest, body)
            if fields.stream:
                raise InvalidRequest("stream must be false: Call has one answer", param="stream")
            answer = await generate(await self._runner.served(fields.model), fields, timeout)
        else:
            asked = parse(ScoreRequest, body)
            answer = await score(self._runner, asked.items, asked.model, timeout)
        response = pb.Response()
        json_format.ParseDict(answer, response.json)
        return response

    async def ServiceMetadata(
        self, request: pb.ServiceMetadataRequest, context: Context
    ) -> pb.ServiceMetadataResponse:
        """Names of the APIs, and that they speak JSON."""
        kind = pb.ServiceMetadataResponse
        descriptor = kind.DescriptorMetadata(descriptor_id=JSON)
        apis = [
            kind.InferenceAPI(name=name, input=descriptor, output=descriptor, docs=docs)
            for name, docs in DOCS.items()
        ]
        return kind(name="pythia", apis=apis, docs="Serves Pythia checkpoints in 8 bits.")


def _body(request: pb.Request) -> Mapping[str, Any]:
    content = request.WhichOneof("content")
    if content != "json":
        raise InvalidRequest(f"content must be json, not {content or 'missing'}", param="content")
    body = _plain(request.json, "the body")
    if not isinstance(body, Mapping):
        raise InvalidRequest("the body must be a JSON object")
    return body


def _plain(value: Any, name: str) -> Any:
    """A google.protobuf.Value in Python's types; ``name`` is the field it belongs to."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {key: _plain(part, key) for key, part in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(part, name) for part in value.list_value.values]
    if kind == "number_value":
        return _number(value.number_value, name)
    return None if kind in (None, "null_value") else getattr(value, kind)


def _number(value: float, name: str) -> int | float:
    """Whole numbers are integers, which protobuf's JSON does not tell from others."""
    if not math.isfinite(value):
        raise InvalidRequest(f"{name} must be a finite number, not {value}", param=name)
    if not value.is_integer():
        return value
    if abs(value) >= MAX_EXACT:
        raise InvalidRequest(
            f"{name} holds {value:.0f}, but JSON within protobuf is exact only below 2^53",
            param=name,
        )
    return int(value)
