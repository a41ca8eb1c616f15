"""``/v1/sweep``: what clients may send, as strict as ``bodies``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from pythia_bento.errors import InvalidRequest, shown
from pythia_bento.protocol.bodies import OnePrompt
from pythia_bento.protocol.parsing import invalid_request
from pythia_bento.protocol.sampling import (
    IDS_SCHEMA,
    STRING_SCHEMA,
    Body,
    Integer,
    Sampling,
    is_ids,
    schema,
)

MAX_ITEMS = 2048
MAX_CHECKPOINTS = 2048  # that a request may name
MAX_ID_CHARS = 256  # of an item, which each of its rows repeats
MAX_SPLIT = 2**20  # tokens; above any context, which is looked at later


class SweepItem(Body):
    """One text, as in ``/score``; rows name it by its place in the list and by its ``id``."""

    prompt: OnePrompt
    continuation: OnePrompt | None = None
    id: StrictStr | None = None

    @field_validator("id")
    @classmethod
    def _is_short(cls, value: str | None) -> str | None:
        if value is not None and len(value) > MAX_ID_CHARS:
            raise ValueError(f"id has {len(value)} characters, but the limit is {MAX_ID_CHARS}")
        return value


class ScoreTask(Body):
    """Log-probability of each text."""

    type: Literal["score"] = "score"
    tokens: StrictBool = False
    """Whether rows have each token's log-probability and rank."""


class GenerateTask(Sampling):
    """A continuation of each prompt, sampled with the same noise at every checkpoint."""

    type: Literal["generate"] = "generate"


class ExtractTask(Body):
    """Whether greedy decoding continues the first tokens of a text as the text goes on."""

    type: Literal["extract"] = "extract"
    prompt_tokens: Annotated[Integer, Field(ge=1, le=MAX_SPLIT)] = 32
    tokens: Annotated[Integer, Field(ge=1, le=MAX_SPLIT)] = 32
    share: StrictBool = False
    """Whether rows have the share of equal tokens under free running too."""


TASKS: dict[str, type[ScoreTask | GenerateTask | ExtractTask]] = {
    "score": ScoreTask,
    "generate": GenerateTask,
    "extract": ExtractTask,
}


def _task(value: Any) -> Any:
    """By its type, so that what is wrong is said of that one."""
    if isinstance(value, tuple(TASKS.values())):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("task must be an object")
    kind = value.get("type") or "score"
    if not isinstance(kind, str) or kind not in TASKS:
        raise ValueError(f"task.type must be score, generate or extract, not {shown(kind)}")
    try:
        return TASKS[kind].model_validate(value)
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False)
        raise invalid_request({**first, "loc": ("task", *first["loc"])}) from None


def _steps(value: Any) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    if is_ids(value) and value:
        if len(value) > MAX_CHECKPOINTS:
            raise ValueError(
                f"steps has {len(value)} entries, but the limit is {MAX_CHECKPOINTS}"
            )
        return tuple(value)
    raise ValueError(
        "steps must be all, log, FROM:TO:BY as 1000:143000:2000, or a list of integers, and not "
        "empty"
    )


Task = Annotated[
    ScoreTask | GenerateTask | ExtractTask, Field(discriminator="type"), BeforeValidator(_task)
]
Steps = Annotated[Any, BeforeValidator(_steps), schema(STRING_SCHEMA, IDS_SCHEMA)]


class SweepRequest(Body):
    """``/v1/sweep``: texts, checkpoints, and what is to be computed of each text by each."""

    items: list[SweepItem]
    model: StrictStr | None = None
    """A name without a revision; by default the one of what the server serves."""
    steps: Steps = "all"
    models: list[StrictStr] | None = None
    """Ids in place of ``model`` and ``steps``."""
    task: Task = ScoreTask()
    priority: Integer = 10

    @model_validator(mode="before")
    @classmethod
    def _within_bounds(cls, data: Any) -> Any:
        """Before entries are looked at one by one. InvalidRequest is let through by pydantic."""
        if not isinstance(data, Mapping):
            return data
        for field, most in (("items", MAX_ITEMS), ("models", MAX_CHECKPOINTS)):
            value = data.get(field)
            if isinstance(value, list) and not 1 <= len(value) <= most:
                raise InvalidRequest(
                    f"{field} must have 1 to {most:,} entries, not {len(value):,}", param=field
                )
        if data.get("models") is not None:
            for field in ("model", "steps"):
                if data.get(field) is not None:
                    raise InvalidRequest(
                        f"models stands in place of {field}; give one of the two", param="models"
                    )
        return data
