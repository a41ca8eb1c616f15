"""What clients may send to patch one prompt's inside into another prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, StrictStr
from pydantic_core import PydanticCustomError

from pythia_bento.protocol.bodies import OnePrompt
from pythia_bento.protocol.inside import only
from pythia_bento.protocol.interventions import MAX_INDEX, NAME_SCHEMA, Name, is_index, is_name
from pythia_bento.protocol.sampling import Body, Integer
from pythia_bento.protocol.schemas import schema

MAX_CELLS = 4096
Axis = Literal["position", "head"]
_AXES: tuple[Axis, ...] = ("position", "head")


@dataclass(frozen=True, slots=True)
class MetricOf:
    """What is told of the logits behind the last position."""

    kind: Literal["logit_diff", "logprob"]
    tokens: tuple[int | str, ...]
    """Ids, or texts that are one token: two for ``logit_diff``, the first's minus the second's."""


def _metric(value: Any) -> MetricOf:
    if isinstance(value, MetricOf):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        pair, one = value.get("logit_diff"), value.get("logprob", "")
        if isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_token, pair)):
            return MetricOf("logit_diff", tuple(pair))
        if _is_token(one):
            return MetricOf("logprob", (one,))
    raise PydanticCustomError(
        "metric", 'must be {"logit_diff": [a, b]} or {"logprob": a}, each a token\'s id or text'
    )


def _is_token(value: Any) -> bool:
    return is_index(value) or is_name(value)


def _written_metric(metric: MetricOf) -> Any:
    return {metric.kind: metric.tokens if metric.kind == "logit_diff" else metric.tokens[0]}


_TOKEN: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_INDEX}, NAME_SCHEMA]
}
_PAIR: dict[str, Any] = {"type": "array", "items": _TOKEN, "minItems": 2, "maxItems": 2}
Metric = Annotated[
    Any,
    BeforeValidator(_metric),
    PlainSerializer(_written_metric),
    schema(only("logit_diff", _PAIR), only("logprob", _TOKEN)),
]


def _over(value: Any) -> Axis:
    for axis in _AXES:
        if value in (["layer", axis], ("layer", axis)):
            return axis
    raise PydanticCustomError("over", 'must be ["layer", "position"] or ["layer", "head"]')


_OVER: dict[str, Any] = {"enum": [["layer", axis] for axis in _AXES]}
Over = Annotated[
    Any,
    BeforeValidator(_over),
    PlainSerializer(lambda over: ["layer", over]),
    schema(_OVER),
]


class PatchRequest(Body):
    """``/v1/patch``: a prompt with one place of another's after the other, and what that does."""

    clean: OnePrompt
    corrupted: OnePrompt
    site: Name
    over: Over = "position"
    metric: Metric
    model: StrictStr | None = None
    priority: Annotated[Integer, Field(ge=-20, le=20)] = 0
