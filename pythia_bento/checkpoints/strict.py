"""Strict schemas for whatever comes from outside as JSON or YAML: files of checkpoints, hubs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from pythia_bento.errors import CheckpointError, shown

_Model = TypeVar("_Model", bound="Strict")

MAX_JSON_BYTES = 64 << 20  # a tokenizer of a million tokens; more is nothing that belongs here


class Strict(BaseModel):
    """Exact types, no unknown fields, no NaN. ``"5"`` is no integer, and neither is ``true``."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def read_json(path: Path) -> Any:
    """A JSON file of at most MAX_JSON_BYTES, at most 200 levels deep.

    Raises CheckpointError with a sentence that names the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint has no {path.name}: {path.parent}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} has more than {MAX_JSON_BYTES} bytes, the limit for JSON")
    return parse_json(data, str(path))


def parse_json(data: bytes, what: str) -> Any:
    """JSON as its standard has it; raises CheckpointError, naming ``what`` was read."""
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise CheckpointError(f"{what} cannot be read as JSON: {error}") from None


def check(schema: type[_Model], data: Any, what: str) -> _Model:
    """``data`` as a schema; raises CheckpointError for the first field that is wrong."""
    if not isinstance(data, dict):
        raise CheckpointError(f"{what} must be an object, not {shown(data)}")
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise CheckpointError(f"{what}: {sentence(first)}") from None


def sentence(fault: Any) -> str:
    """One of pydantic's faults in words: the field, what it must be, what it is."""
    field = ".".join(str(part) for part in fault["loc"])[:100]
    if fault["type"] == "missing":
        return f"the field {field} is missing"
    if fault["type"] == "extra_forbidden":
        return f"the field {field} is not known here, and could change what the model computes"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message
    message = message.replace("Input should be", "must be")
    return f"{field} {message}, not {shown(fault['input'])}"
