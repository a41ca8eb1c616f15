"""Activations and patches in the messages of ``pythia.v1``, in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

from pythia_bento.errors import PayloadTooLarge
from pythia_bento.handlers.inside_answer import Answer
from pythia_bento.handlers.patch import Patched
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.inside import (
    MAX_CAPTURES,
    MAX_DIRECTIONS,
    MAX_LENS_TOKENS,
    MAX_PROMPTS,
)
from pythia_bento.protocol.interventions import (
    MAX_HEADS,
    MAX_INLINE,
    MAX_INTERVENTIONS,
    MAX_LOGIT_TOKENS,
    MAX_NEURONS,
    MAX_POSITIONS,
)
from pythia_bento.runtime.turns import Turns
from pythia_bento.server.grpc.intake import MAX_BYTES
from pythia_bento.server.grpc.messages import prompt_of, sampling_of

_One = TypeVar("_One")


async def activations_body(request: pb.ActivationsRequest) -> dict[str, Any]:
    """As JSON would have it, to be validated."""
    told: dict[str, Any] = {**sampling_of(request.sampling), **_named(request)}
    told["prompts"] = await _each(prompt_of, _few(MAX_PROMPTS, request.prompts))
    if request.capture:
        told["capture"] = await _each(_fields, _few(MAX_CAPTURES, request.capture))
    if request.interventions:
        told["interventions"] = await interventions(request.interventions)
    if request.HasField("logits"):
        told["logits"] = _fields(request.logits, tokens=partial(_few, MAX_LOGIT_TOKENS))
    return told


async def interventions(asked: Sequence[pb.Intervention]) -> list[dict[str, Any]]:
    """The same of interventions."""
    return await _each(_intervention, _few(MAX_INTERVENTIONS, asked))


def tensors_of(request: pb.ActivationsRequest, most: int) -> bytes | None:
    """The file beside it; raises PayloadTooLarge above ``most`` bytes, or what a message holds."""
    limit = min(most, MAX_BYTES)
    if len(request.tensors) > limit:
        raise PayloadTooLarge(
            f"tensors has {len(request.tensors)} bytes, but the limit is {limit}; over HTTP more "
            "may be sent",
            param="tensors",
        )
    return request.tensors or None


async def parts(answer: Answer) -> AsyncIterator[pb.ActivationsPart]:
    """The whole answer: what the file has, the file, and what it took."""
    yield pb.ActivationsPart(header=_header(answer))
    async for piece in answer.pieces():
        yield pb.ActivationsPart(data=bytes(piece))
    yield pb.ActivationsPart(summary=_summary(answer))


def patch_body(request: pb.PatchRequest) -> dict[str, Any]:
    """As JSON would have it, to be validated."""
    told: dict[str, Any] = {
        name: prompt_of(getattr(request, name))
        for name in ("clean", "corrupted")
        if request.HasField(name)
    }
    told |= {name: getattr(request, name) for name in ("model", "site") if getattr(request, name)}
    if request.over:
        told["over"] = _few(2, request.over)
    if request.HasField("priority"):
        told["priority"] = request.priority
    if request.HasField("metric"):
        told["metric"] = _metric(request.metric)
    return told


def patched(answer: Patched) -> pb.PatchResponse:
    """The whole answer."""
    told: dict[str, Any] = {**answer}
    values = [pb.Numbers(numbers=row) for row in told.pop("values")]
    return pb.PatchResponse(fingerprint=told.pop("system_fingerprint"), values=values, **told)


def _named(request: pb.ActivationsRequest) -> dict[str, str]:
    names = ("model", "dtype")
    return {name: getattr(request, name) for name in names if getattr(request, name)}


def _few(most: int, values: Sequence[_One]) -> list[_One]:
    """All, or one more than there may be: what reads them refuses that."""
    return list(values[: most + 1])


async def _each(read: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    turns, found = Turns(), []
    for value in values:
        found.append(read(value))
        await turns.take()
    return found


def _fields(message: Any, **others: Callable[[Any], Any]) -> dict[str, Any]:
    """What was set; ``others`` read fields of this kind of message alone."""
    read = {**_READ, **others}
    return {
        field.name: read[field.name](value) if field.name in read else value
        for field, value in message.ListFields()
    }


def _intervention(one: pb.Intervention) -> dict[str, Any]:
    fields = _fields(one)
    if "from_prompt" in fields:
        fields["from"] = {"prompt": fields.pop("from_prompt")}
    return fields


def _positions(positions: pb.Positions) -> Any:
    kind = positions.WhichOneof("positions")
    if kind == "indices":
        return _few(MAX_POSITIONS, positions.indices.indices)
    if kind == "span":
        names = {"start": "from", "stop": "to"}
        return {names[field.name]: end for field, end in positions.span.ListFields()}
    return positions.word


def _vector(vector: pb.Vector) -> Any:
    is_tensor = vector.WhichOneof("vector") == "tensor"
    return vector.tensor if is_tensor else _few(MAX_INLINE, vector.numbers.numbers)


def _reduce(reduce: pb.Reduce) -> Any:
    kind = reduce.WhichOneof("reduce")
    if kind == "lens":
        tokens = _few(MAX_LENS_TOKENS, reduce.lens.tokens)
        return {"lens": {"top": reduce.lens.top, "tokens": tokens}}
    if kind == "project":
        rows = _few(MAX_DIRECTIONS, reduce.project.rows)
        inline = [_few(MAX_INLINE, row.numbers) for row in rows]
        return {"project": reduce.project.tensor or inline}
    return reduce.word


_READ: dict[str, Callable[[Any], Any]] = {
    "positions": _positions,
    "heads": partial(_few, MAX_HEADS),
    "neurons": partial(_few, MAX_NEURONS),
    "prompts": partial(_few, MAX_PROMPTS),
    "vector": _vector,
    "reduce": _reduce,
}


def _metric(metric: pb.Metric) -> Any:
    if metric.WhichOneof("metric") == "logit_diff":
        pair = metric.logit_diff
        return {"logit_diff": [_token(pair.first), _token(pair.second)]}
    return {"logprob": _token(metric.logprob)}


def _token(token: pb.OneToken) -> int | str:
    return token.id if token.WhichOneof("token") == "id" else token.text


def _header(answer: Answer) -> pb.TensorsHeader:
    return pb.TensorsHeader(
        model=answer.model,
        fingerprint=answer.system_fingerprint,
        nbytes=answer.nbytes,
        tensors=_infos(answer),
    )


def _infos(answer: Answer) -> Iterator[pb.TensorInfo]:
    entries = [tensor.entry for tensor in answer.tensors]
    offsets = accumulate((entry.nbytes for entry in entries), initial=len(answer.header))
    for entry, offset in zip(entries, offsets, strict=False):  # the last is the file's end
        yield pb.TensorInfo(name=entry.name, dtype=entry.dtype, shape=entry.shape, offset=offset)


def _summary(answer: Answer) -> pb.ActivationsSummary:
    texts = answer.texts
    generated = sum(len(one["token_ids"]) for one in texts["completions"] if one is not None)
    total = sum(map(len, texts["tokens"]))
    seed = texts["request"].get("seed")
    return pb.ActivationsSummary(
        num_prompt_tokens=total - generated,
        num_completion_tokens=generated,
        seed=seed if seed is None or seed < 2**63 else seed - 2**64,  # the same, signed
    )
