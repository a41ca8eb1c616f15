"""``embeddings``: the last hidden state of a text, as one vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pythia_bento.engine.capture import Capture, Tap
from pythia_bento.engine.outputs import raise_error
from pythia_bento.engine.params import Request, SamplingParams, new_request_id
from pythia_bento.engine.validate import check_sequences
from pythia_bento.errors import InvalidRequest, PayloadTooLarge
from pythia_bento.handlers.requests import of_field
from pythia_bento.model.sites import NORMALIZED, Place
from pythia_bento.protocol.embeddings import EmbeddingsRequest
from pythia_bento.protocol.sampling import Prompt
from pythia_bento.runtime.captured import sizes
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.turns import Turns

Vector = np.ndarray


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The whole answer."""

    vectors: list[Vector]  # float32 [width], one for each text
    num_prompt_tokens: int  # of all texts


async def embeddings(
    served: Served, body: EmbeddingsRequest, timeout: float | None = None
) -> Embeddings:
    """Of each text what the head would multiply: the state behind the final norm.

    Raises what refuses the request, and what ended one of its texts.
    """
    width = served.config.hidden_size
    if body.dimensions not in (None, width):
        raise InvalidRequest(
            f"dimensions must be {width}, the model's width, not {body.dimensions}",
            param="dimensions",
        )
    requests = await _requests(served, body)
    vectors, turns = [], Turns()
    with await served.capture(requests, timeout) as found:
        for [output], memory in zip(found.outputs, found.memory, strict=True):
            raise_error(output)
            vectors.append(_vector(memory, width, body.normalize))
            await turns.take()
    return Embeddings(vectors, sum(len(request.prompt) for request in requests))


async def _requests(served: Served, body: EmbeddingsRequest) -> list[Request]:
    texts = body.input
    check_sequences(len(texts), 1, served.limits)
    id, requests, turns = new_request_id(), [], Turns()
    for number, text in enumerate(texts):
        field = f"input[{number}]" if len(texts) > 1 else "input"
        requests.append(await _request(served, f"{id}-{number}", text, field, body))
        await turns.take()
    _check_size(served, requests)
    return requests


async def _request(
    served: Served, id: str, text: Prompt, field: str, body: EmbeddingsRequest
) -> Request:
    ids = tuple(await served.encode(text, field))
    positions = range(len(ids)) if body.pooling == "mean" else (len(ids) - 1,)
    tap = Tap(Place(NORMALIZED), positions, reduction="mean" if body.pooling == "mean" else None)
    params = SamplingParams(max_tokens=0)
    request = Request(id, ids, params, priority=body.priority, capture=Capture((tap,)))
    try:
        served.check(request)
    except InvalidRequest as error:
        raise of_field(error, field) from None
    return request


def _check_size(served: Served, requests: Sequence[Request]) -> None:
    each = sum(sizes(requests[:1], served.config))
    most = served.settings.max_capture_bytes
    if each * len(requests) > most:
        raise PayloadTooLarge(
            f"input has {len(requests)} texts, whose embeddings take {each * len(requests):,} "
            f"bytes, but the limit is {most:,}",
            param="input",
        )


def _vector(memory: memoryview, width: int, is_normalized: bool) -> Vector:
    """A copy of what was captured, perhaps of length 1: in fp64, each by itself."""
    vector: Vector = np.frombuffer(memory, "<f4", width).copy()
    if is_normalized:
        wide = vector.astype(np.float64)
        if length := math.sqrt(float(np.add.reduce(wide * wide))):
            vector = (wide / length).astype("<f4")
    return vector
