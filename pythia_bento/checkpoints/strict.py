"""Strict schemas for whatever comes from outside as JSON or YAML: files of checkpoints, hubs."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from pythia_bento.errors import CheckpointError, printable, shown

_Model = TypeVar("_Model", bound="Strict")

MAX_JSON_BYTES = 64 << 20  # a tokenizer of a million tokens; more is nothing that belongs here


def _true(value: bool) -> bool:
    if not value:
        raise ValueError("must be true")
    return value


def _false(value: bool) -> bool:
    if value:
        raise ValueError("must be false")
    return value


# `Literal[True]` also takes 1, which is equal to it and which transformers refuses.
Yes = Annotated[bool, AfterValidator(_true)]
No = Annotated[bool, AfterValidator(_false)]


class Strict(BaseModel):
    """Exact types, no unknown fields, no NaN. ``"5"`` is no integer, and neither is ``true``."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Open(Strict):
    """The same for what others may add fields to: a hub's answers, later versions of a file."""

    model_config = ConfigDict(extra="ignore")


def read_json(path: Path) -> Any:
    """A JSON file of at most MAX_JSON_BYTES, at most 200 levels deep.

    Raises CheckpointError with a sentence that names the file.
    """
    return parse_json(read_bytes(path), str(path))


def read_bytes(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """A whole file of at most ``limit`` bytes; raises CheckpointError, naming it."""
    try:
        # Nobody waits for who writes to a pipe of that name.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CheckpointError(f"{path} cannot be read: it is not a file")
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint has no {path.name}: {path.parent}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise CheckpointError(f"{path} has more than {limit} bytes, the limit for its kind")
    return data


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
        raise CheckpointError(f"{what}: {sentence(error)}") from None


def sentence(error: ValidationError) -> str:
    """The first of pydantic's faults in words: the field, what it must be, what it is."""
    field, problem = first_fault(error)
    if problem.startswith("is "):
        return f"the field {field} {problem}"
    return f"{field} {problem}".lstrip()


def first_fault(error: ValidationError) -> tuple[str, str]:
    """The field at fault, empty where it is several together, and what is wrong with it."""
    fault = error.errors(include_url=False, include_context=False)[0]
    field = printable(".".join(str(part) for part in fault["loc"]))
    field = field if len(field) <= 100 else f"{field[:60]}...{field[-37:]}"
    if fault["type"] == "missing":
        return field, "is missing"
    if fault["type"] == "extra_forbidden":
        return field, "is not known here, and could change what the others mean"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return "" if not fault["loc"] else field, message
    for words in ("Input should", "String should", "Dictionary should", "List should"):
        message = message.replace(words, "must")
    return field, f"{message}, not {shown(fault['input'])}"
