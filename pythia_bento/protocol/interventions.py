"""What a request changes inside the model, and which logits it wants to see.

Here are types and sizes; what they mean for a model and a prompt is ``handlers.places``' to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, PlainSerializer, StrictStr
from pydantic_core import PydanticCustomError

from pythia_bento.engine.interventions import Op
from pythia_bento.protocol.sampling import Body, Number
from pythia_bento.protocol.schemas import STRING_SCHEMA, schema

MAX_INTERVENTIONS = 256
MAX_INLINE = 16_384  # numbers of a vector that is a list
MAX_NUMBERS = 65_536  # in all lists of a request's interventions, or of its captures, together
MAX_POSITIONS = 2048
MAX_HEADS = 1024
MAX_NEURONS = 4096
MAX_LOGIT_TOKENS = 1024
MAX_NAME = 256  # characters of a site's or a tensor's
MAX_INDEX = 2**31 - 1
LARGEST = 1e6  # of numbers that are computed with

Word = Literal["all", "last", "prompt", "generated"]
WORDS: tuple[Word, ...] = ("all", "last", "prompt", "generated")
_List = TypeVar("_List")


@dataclass(frozen=True, slots=True)
class Span:
    """Positions from ``start`` to below ``stop``; those below 0 count from the prompt's end."""

    start: int | None = None
    stop: int | None = None


PositionsOf = Word | tuple[int, ...] | Span


def is_index(value: Any, low: int = 0) -> bool:
    """Whether it is an integer that may count something."""
    return type(value) is int and low <= value <= MAX_INDEX


def _positions(value: Any) -> PositionsOf:
    if isinstance(value, Span):
        return value
    for word in WORDS:
        if value == word:
            return word
    if isinstance(value, list | tuple) and 0 < len(value) <= MAX_POSITIONS:
        if set(map(type, value)) == {int} and -MAX_INDEX <= min(value) <= max(value) <= MAX_INDEX:
            return tuple(value)
    elif isinstance(value, Mapping) and value.keys() <= {"from", "to"}:
        ends = value.get("from"), value.get("to")
        if all(end is None or is_index(end, -MAX_INDEX) for end in ends):
            return Span(*ends)
    raise PydanticCustomError(
        "positions",
        'must be "all", "last", "prompt", "generated", a list of 1 to 2,048 integers or '
        '{"from": an integer, "to": an integer}',
    )


def _written(positions: PositionsOf) -> Any:
    if isinstance(positions, Span):
        ends = {"from": positions.start, "to": positions.stop}
        return {name: end for name, end in ends.items() if end is not None}
    return positions


def is_vector(value: Any) -> bool:
    """Whether it is a list of numbers that may stand in a request."""
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_INLINE:
        return False
    return set(map(type, value)) <= {int, float}  # a bool is no number


def is_name(value: Any) -> bool:
    """Whether it may name a tensor."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME


def _vector(value: Any) -> str | tuple[float, ...]:
    if is_name(value):
        return str(value)
    if is_vector(value):
        return tuple(value)
    raise PydanticCustomError(
        "vector", "must be the name of a tensor or a list of 1 to 16,384 numbers"
    )


def few_numbers(value: _List) -> _List:
    """``value`` where its lists have at most MAX_NUMBERS entries: looking at them takes time."""
    if not _is_small(value):
        raise PydanticCustomError(
            "few_numbers",
            "must have at most 65,536 numbers in its lists; send more as tensors",
        )
    return value


_CONTAINERS = {dict, list, tuple}


def _is_small(value: Any) -> bool:
    """Whether its lists, at any depth, have so many entries at most: no more are looked at."""
    count, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list | tuple):
            count += len(one)
            if count > MAX_NUMBERS:
                return False
            if not _CONTAINERS.isdisjoint(map(type, one)):  # fast, for most have numbers alone
                left += [part for part in one if type(part) in _CONTAINERS]
    return True


def array_schema(low: int, most: int) -> dict[str, Any]:
    """Different integers, which count from 0."""
    integers = {"type": "integer", "minimum": low, "maximum": MAX_INDEX}
    return {"type": "array", "items": integers, "minItems": 1, "maxItems": most}


END = {"type": "integer", "minimum": -MAX_INDEX, "maximum": MAX_INDEX}
POSITIONS_SCHEMA: tuple[dict[str, Any], ...] = (
    {"enum": list(WORDS)},
    array_schema(-MAX_INDEX, MAX_POSITIONS),
    {
        "type": "object",
        "properties": {name: {"anyOf": [END, {"type": "null"}]} for name in ("from", "to")},
        "additionalProperties": False,
    },
)
NAME_SCHEMA = {**STRING_SCHEMA, "minLength": 1, "maxLength": MAX_NAME}
NUMBER_SCHEMA = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
VECTOR_SCHEMA: dict[str, Any] = {
    **{"type": "array", "items": NUMBER_SCHEMA, "minItems": 1, "maxItems": MAX_INLINE},
}

Name = Annotated[StrictStr, Field(min_length=1, max_length=MAX_NAME)]
Index = Annotated[int, Field(strict=True, ge=0, le=MAX_INDEX)]
Positions = Annotated[
    Any, BeforeValidator(_positions), PlainSerializer(_written), schema(*POSITIONS_SCHEMA)
]
Heads = Annotated[tuple[Index, ...], Field(min_length=1, max_length=MAX_HEADS)]
Neurons = Annotated[tuple[Index, ...], Field(min_length=1, max_length=MAX_NEURONS)]
Vector = Annotated[Any, BeforeValidator(_vector), schema(NAME_SCHEMA, VECTOR_SCHEMA)]
Finite = Annotated[Number, Field(ge=-LARGEST, le=LARGEST)]


class Intervention(Body):
    """One change at a site, of the rows at some positions."""

    site: Name
    op: Op
    positions: Positions = "all"
    heads: Heads | None = None
    neurons: Neurons | None = None
    vector: Vector | None = None
    scale: Finite = 1.0
    low: Finite | None = None
    high: Finite | None = None


Interventions = Annotated[
    tuple[Intervention, ...], BeforeValidator(few_numbers), Field(max_length=MAX_INTERVENTIONS)
]


class LogitsOf(Body):
    """Tokens whose logits are wanted, behind the inputs at some positions."""

    tokens: Annotated[tuple[Index, ...], Field(min_length=1, max_length=MAX_LOGIT_TOKENS)]
    positions: Positions = "last"
