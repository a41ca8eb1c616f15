"""What clients may send to see the inside of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, StrictStr, field_validator
from pydantic_core import PydanticCustomError
from typing_extensions import override

from pythia_bento.protocol.interventions import (
    MAX_INTERVENTIONS,
    NAME_SCHEMA,
    NUMBER_SCHEMA,
    VECTOR_SCHEMA,
    Heads,
    Index,
    Intervention,
    LogitsOf,
    Name,
    Neurons,
    Positions,
    array_schema,
    few_numbers,
    is_index,
    is_name,
    is_vector,
)
from pythia_bento.protocol.sampling import Body, Integer, Prompt, Sampling, is_ids
from pythia_bento.protocol.schemas import IDS_SCHEMA, STRING_SCHEMA, schema

MAX_PROMPTS = 256
MAX_CAPTURES = 64
MAX_TENSORS = 4096  # of an answer's captures
MAX_TOP = 100  # tokens of a lens
MAX_LENS_TOKENS = 256
MAX_DIRECTIONS = 1024
MAX_JSON_NUMBERS = 65_536


@dataclass(frozen=True, slots=True)
class ProjectOf:
    """Products with directions: a tensor's name, or the directions themselves."""

    project: str | tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class LensOf:
    """What the final norm and the head make of a row."""

    top: int = 0
    tokens: tuple[int, ...] = ()


ReduceOf = Literal["mean", "norm"] | ProjectOf | LensOf


def _reduce(value: Any) -> ReduceOf:
    if isinstance(value, ProjectOf | LensOf):
        return value
    if value in ("mean", "norm"):
        return "mean" if value == "mean" else "norm"
    if isinstance(value, Mapping) and len(value) == 1:
        lens = value.get("lens")
        found = _lens(lens) if isinstance(lens, Mapping) else _project(value.get("project"))
        if found is not None:
            return found
    raise PydanticCustomError(
        "reduce",
        'must be "mean", "norm", {"project": a tensor\'s name or 1 to 1,024 directions} or '
        '{"lens": {"top": 0 to 100, "tokens": at most 256 ids}}',
    )


def _project(value: Any) -> ReduceOf | None:
    if is_name(value):
        return ProjectOf(str(value))
    if is_vector(value):
        return ProjectOf((tuple(value),))
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_DIRECTIONS:
        return None
    rows = [tuple(row) for row in value if is_vector(row)]
    are_equal = len(rows) == len(value) and len(set(map(len, rows))) == 1
    return ProjectOf(tuple(rows)) if are_equal else None


def _lens(value: Mapping[str, Any]) -> ReduceOf | None:
    top, tokens = value.get("top"), value.get("tokens")
    lens = LensOf(0 if top is None else top, () if tokens is None else tokens)
    if not is_index(lens.top) or lens.top > MAX_TOP or not value.keys() <= {"top", "tokens"}:
        return None
    if not isinstance(lens.tokens, list | tuple) or len(lens.tokens) > MAX_LENS_TOKENS:
        return None
    if not all(map(is_index, lens.tokens)) or not (lens.top or lens.tokens):
        return None
    return LensOf(lens.top, tuple(lens.tokens))


def _written(reduce: ReduceOf | None) -> Any:
    if isinstance(reduce, LensOf):
        return {"lens": asdict(reduce)}
    return asdict(reduce) if isinstance(reduce, ProjectOf) else reduce


_NULL = {"type": "null"}
_LENS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "top": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_TOP}, _NULL]},
        "tokens": {"anyOf": [{**array_schema(0, MAX_LENS_TOKENS), "minItems": 0}, _NULL]},
    },
    "additionalProperties": False,
    "minProperties": 1,
}
_DIRECTIONS_SCHEMA: dict[str, Any] = {
    # So many of the greatest length would be more than any body has.
    **{"type": "array", "items": {"type": "array", "items": NUMBER_SCHEMA, "minItems": 1}},
    **{"minItems": 1, "maxItems": MAX_DIRECTIONS},
}


def only(name: str, *kinds: dict[str, Any]) -> dict[str, Any]:
    """An object with one field."""
    kind = kinds[0] if len(kinds) == 1 else {"anyOf": list(kinds)}
    properties = {"properties": {name: kind}, "required": [name], "additionalProperties": False}
    return {"type": "object", **properties}


Reduce = Annotated[
    Any,
    BeforeValidator(_reduce),
    PlainSerializer(_written),
    schema(
        {"enum": ["mean", "norm"]},
        only("project", NAME_SCHEMA, VECTOR_SCHEMA, _DIRECTIONS_SCHEMA),
        only("lens", _LENS_SCHEMA),
    ),
]


class CaptureItem(Body):
    """What is to be seen at a site, or at the same site of several layers."""

    site: Name
    positions: Positions = "all"
    heads: Heads | None = None
    neurons: Neurons | None = None
    reduce: Reduce | None = None


class Source(Body):
    """Where values come from."""

    prompt: Annotated[int, Field(strict=True, ge=0, lt=MAX_PROMPTS)]


class PromptIntervention(Intervention):
    """A change in some of a request's prompts, perhaps to what another one had there."""

    source: Source | None = Field(None, alias="from")
    prompts: Annotated[tuple[Index, ...], Field(min_length=1, max_length=MAX_PROMPTS)] | None = None
    """All where it is null."""

    @classmethod
    @override
    def knows(cls, field: str) -> bool:
        return field == "from" or (field != "source" and super().knows(field))


def _prompts(value: Any) -> tuple[Prompt, ...]:
    if isinstance(value, list | tuple) and 0 < len(value) <= MAX_PROMPTS:
        found = [_prompt(one) for one in value]
        if all(one is not None for one in found):
            return tuple(one for one in found if one is not None)
    raise PydanticCustomError(
        "prompts", "must be a list of 1 to 256 texts or lists of token ids that are not empty"
    )


def _prompt(value: Any) -> Prompt | None:
    if isinstance(value, str | tuple):  # tuples were looked at
        return value or None
    return tuple(value) if is_ids(value) and value else None


_PROMPTS: dict[str, Any] = {
    **{"type": "array", "items": {"anyOf": [STRING_SCHEMA, IDS_SCHEMA]}},
    **{"minItems": 1, "maxItems": MAX_PROMPTS},
}
SomePrompts = Annotated[Any, BeforeValidator(_prompts), schema(_PROMPTS)]
Captures = Annotated[
    tuple[CaptureItem, ...], BeforeValidator(few_numbers), Field(max_length=MAX_CAPTURES)
]
PromptInterventions = Annotated[
    tuple[PromptIntervention, ...],
    BeforeValidator(few_numbers),
    Field(max_length=MAX_INTERVENTIONS),
]


class ActivationsRequest(Sampling):
    """``/v1/activations``: what the model computes of some prompts, and of what it continues."""

    prompts: SomePrompts
    model: StrictStr | None = None
    max_tokens: Integer = 0
    capture: Captures = ()
    interventions: PromptInterventions = ()
    logits: LogitsOf | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    format: Literal["safetensors", "json"] = "safetensors"

    @field_validator("n", "best_of")
    @classmethod
    def _is_one(cls, value: int | None) -> int | None:
        if value not in (None, 1):
            raise PydanticCustomError("one", "must be 1, as what is captured is of one text")
        return value
