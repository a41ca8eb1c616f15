"""Fields that say what the text of an answer must be: vLLM's, its older ones and OpenAI's.

However it is written, it becomes one ``Constraint``, and ``structured_outputs`` is its field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from pythia_bento.engine.grammars import MOST_CHARS, MOST_CHOICES, Constraint, Kind
from pythia_bento.engine.tokenizer import check_unicode
from pythia_bento.errors import InvalidRequest, shown
from pythia_bento.protocol.parsing import loads
from pythia_bento.protocol.schemas import STRING_SCHEMA, STRINGS_SCHEMA, schema

FIELD = "structured_outputs"
_KINDS: tuple[Kind, ...] = ("choice", "regex", "json", "grammar")
_ANY_OBJECT = {"type": "object"}
_FORMATS = ("text", "json_object", "json_schema")

_OBJECT: dict[str, Any] = {"type": "object"}
_TEXT: dict[str, Any] = {**STRING_SCHEMA, "minLength": 1, "maxLength": MOST_CHARS}
_CHOICE = {**STRINGS_SCHEMA, "minItems": 1, "maxItems": MOST_CHOICES}
_JSON: dict[str, Any] = {"anyOf": [_OBJECT, _TEXT]}
_OF_KIND = {"choice": _CHOICE, "regex": _TEXT, "json": _JSON, "grammar": _TEXT}
_STRUCTURED: dict[str, Any] = {
    "type": "object",
    "properties": {kind: {"anyOf": [one, {"type": "null"}]} for kind, one in _OF_KIND.items()},
    "additionalProperties": False,
    "minProperties": 1,
}
_FORMAT: dict[str, Any] = {
    "type": "object",
    "properties": {"type": {"enum": [*_FORMATS]}},
    "required": ["type"],
}
ALIASES: dict[str, dict[str, Any]] = {
    **{f"guided_{kind}": _OF_KIND[kind] for kind in _KINDS},
    "response_format": _FORMAT,
}
"""Other fields with the same meaning, and what each may be, as JSON Schema."""


def without_aliases(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a body, with what an alias says under ``FIELD``.

    Raises InvalidRequest, which pydantic lets through.
    """
    rest = {field: value for field, value in given.items() if field not in ALIASES}
    said = {field: given[field] for field in ALIASES if given.get(field) is not None}
    constraints = [c for field, value in said.items() if (c := _of_alias(field, value))]
    if constraints and rest.get(FIELD) is not None:
        constraints.append(constraint_of(rest[FIELD]))
    if len(constraints) > 1:
        first, second = (constraint.field for constraint in constraints[:2])
        raise InvalidRequest(
            f"{first} and {second} both say what the text must be: give one of them", param=second
        )
    return {**rest, FIELD: constraints[0]} if constraints else rest


def constraint_of(value: Any) -> Constraint:
    """What ``structured_outputs`` says; raises InvalidRequest."""
    if isinstance(value, Constraint):
        return value
    said = dict(value) if isinstance(value, Mapping) else {}
    said = {k: v for k, v in said.items() if v is not None or k not in _KINDS}
    kind = next((kind for kind in _KINDS if kind in said), None)
    if kind is None or len(said) != 1:
        raise InvalidRequest(
            f"{FIELD} must be an object with one of choice, regex, json and grammar, and nothing "
            f"else, not {shown(value)}",
            param=FIELD,
        )
    return _constraint(FIELD, f"{FIELD}.{kind}", kind, said[kind])


def _written(constraint: Constraint | None) -> dict[str, Any] | None:
    if constraint is None:
        return None
    text = constraint.text
    return {constraint.kind: json.loads(text) if constraint.kind == "choice" else text}


Structured = Annotated[
    Any, BeforeValidator(constraint_of), PlainSerializer(_written), schema(_STRUCTURED)
]


def _of_alias(field: str, value: Any) -> Constraint | None:
    """None where the text may be any."""
    if field != "response_format":
        kind = next(kind for kind in _KINDS if field == f"guided_{kind}")
        return _constraint(field, field, kind, value)
    form = value.get("type") if isinstance(value, Mapping) else None
    if form == "text":
        return None
    if form == "json_object":
        return _constraint(field, field, "json", _ANY_OBJECT)
    inner = value.get("json_schema") if form == "json_schema" else None
    if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
        return _constraint(field, f"{field}.json_schema.schema", "json", inner["schema"])
    raise InvalidRequest(
        'response_format must be {"type": "text"}, {"type": "json_object"} or {"type": '
        f'"json_schema", "json_schema": {{"schema": {{...}}}}}}, not {shown(value)}',
        param=field,
    )


def _constraint(field: str, name: str, kind: Kind, value: Any) -> Constraint:
    """``name`` is the field and where in it the value stands."""
    if kind == "choice":
        text = _choices(field, name, value)
    elif kind == "json" and isinstance(value, Mapping):
        text = _dumped(field, name, value)
    elif isinstance(value, str) and value:
        text = value
    else:
        a = "a JSON schema, as an object or a text" if kind == "json" else "a text"
        raise InvalidRequest(f"{name} must be {a}, not {shown(value)}", param=field)
    if len(text) > MOST_CHARS:
        raise _too_long(field, name)
    check_unicode(text, field)
    if kind == "json" and isinstance(value, str):
        _check_json(field, name, text)
    return Constraint(field, kind, text)


def _choices(field: str, name: str, value: Any) -> str:
    is_list = isinstance(value, list | tuple) and 0 < len(value) <= MOST_CHOICES
    if not is_list or not all(isinstance(text, str) and text for text in value):
        raise InvalidRequest(
            f"{name} must be a list of 1 to {MOST_CHOICES} texts that are not empty, not "
            f"{shown(value)}",
            param=field,
        )
    if sum(map(len, value)) > MOST_CHARS:
        raise _too_long(field, name)
    return json.dumps([*value], ensure_ascii=False)


def _dumped(field: str, name: str, value: Mapping[str, Any]) -> str:
    """Written piece by piece: what is too long is not written to its end."""
    pieces, length = [], 0
    for piece in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        length += len(piece)
        if length > MOST_CHARS:
            raise _too_long(field, name)
        pieces.append(piece)
    return "".join(pieces)


def _check_json(field: str, name: str, text: str) -> None:
    try:
        is_object = isinstance(loads(text.encode()), dict)
    except InvalidRequest:
        is_object = False
    if not is_object:
        raise InvalidRequest(
            f"{name} must be a JSON schema that is an object, not {shown(text)}", param=field
        )


def _too_long(field: str, name: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} is longer than the limit of {MOST_CHARS} characters", param=field
    )
