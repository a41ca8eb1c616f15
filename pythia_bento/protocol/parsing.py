"""From bytes to validated requests; whatever is wrong becomes one sentence naming the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from pythia_bento.errors import InvalidRequest, shown

_Model = TypeVar("_Model", bound=BaseModel)

# How the JSON parser names text that is not Unicode.
_SURROGATE_HINTS = ("hex escape", "surrogate", "unicode code point")


def loads(body: bytes) -> Any:
    """Parse JSON as its standard has it: no NaN, no lone surrogates, at most 200 levels deep.

    Raises InvalidRequest.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise invalid_json(str(error)) from None


def invalid_json(message: str) -> InvalidRequest:
    """The parser's message as a sentence."""
    if any(hint in message for hint in _SURROGATE_HINTS):
        return InvalidRequest(
            f"the body is not valid Unicode (a lone surrogate, or bytes not UTF-8): {message}"
        )
    return InvalidRequest(f"the body is not valid JSON: {message}")


def parse(model: type[_Model], data: Any, what: str = "the body") -> _Model:
    """Validate parsed JSON; raises InvalidRequest for the first thing that is wrong."""
    if not isinstance(data, Mapping):
        raise InvalidRequest(f"{what} must be a JSON object")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False)[0]) from None


def invalid_request(detail: Mapping[str, Any]) -> InvalidRequest:
    """One of pydantic's error details as a sentence that names the field."""
    field = field_name(detail["loc"])
    kind, message = detail["type"], str(detail["msg"])
    if kind == "json_invalid":
        return invalid_json(message.removeprefix("Invalid JSON: "))
    if kind == "extra_forbidden":
        message = f"{field} is not a field of this request"
    elif kind == "missing":
        message = f"{field} is required"
    elif kind in ("too_long", "too_short"):
        message = f"{field} must have {_bound(**detail['ctx'])}"
    elif kind == "union_tag_invalid":
        message = f"{field}.type must be one of {detail['ctx']['expected_tags']}"
        message += f", not {shown(detail['ctx']['tag'])}"
    elif kind == "value_error":  # ours, and whole sentences
        message = message.removeprefix("Value error, ")
    else:
        message = f"{field} {_lower(message.replace('Input should be', 'must be'))}"
        if "input" in detail:
            message += f", not {shown(detail['input'])}"
    return InvalidRequest(message, param=field.split("[")[0].split(".")[0] or None)


def _bound(actual_length: int, max_length: int | None = None, min_length: int = 0, **_: Any) -> str:
    """Of a list's or a text's length."""
    most = f"at least {min_length}" if max_length is None else f"at most {max_length}"
    return f"{most} entries, not {actual_length}"


def field_name(location: Sequence[str | int]) -> str:
    """``("stop", 0)`` is ``stop[0]``."""
    name = ""
    for part in location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name if len(name) <= 100 else name[:97] + "..."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
