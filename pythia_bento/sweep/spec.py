"""What a sweep is asked for: checkpoints, items, and what to do with each pair of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from pythia_bento.catalog import MAIN, ModelId, parse
from pythia_bento.checkpoints.steps import ALL, LOG, MAX_STEPS, steps_of
from pythia_bento.errors import InvalidRequest, ModelNotFound
from pythia_bento.protocol.bodies import OnePrompt
from pythia_bento.protocol.sampling import Body, Integer, Sampling, is_ids
from pythia_bento.protocol.schemas import IDS_SCHEMA, STRING_SCHEMA, schema
from pythia_bento.sweep.inside_task import ActivationsTask

MAX_ITEMS = 2048  # of a request to a server
MAX_ROWS = 1_000_000  # the same: items times checkpoints
MAX_ID_CHARS = 256
MAX_EXTRACT = 2048  # tokens: no context is longer
PRIORITY = 10  # behind what people wait for
_VERSION = "pythia-bento sweep 1"  # of the key: whatever changes rows of equal requests changes it


class Item(Body):
    """A text. ``continuation`` is scored after ``prompt``, or all of the prompt but its first."""

    id: Annotated[StrictStr, Field(max_length=MAX_ID_CHARS)] | None = None
    prompt: OnePrompt
    continuation: OnePrompt | None = None


class ScoreTask(Body):
    """How likely each item is."""

    type: Literal["score"] = "score"
    tokens: StrictBool = False
    """Whether rows have each token's log-probability and rank."""


class GenerateTask(Sampling):
    """One continuation of each prompt, with the fields of ``/generate``.

    Noise is a function of seed, position and token: two checkpoints draw with the same.
    """

    type: Literal["generate"] = "generate"
    seed: Integer = 0

    @field_validator("priority", "prompt_logprobs")
    @classmethod
    def _is_not_of_a_row(cls, value: int | None, info: ValidationInfo) -> int | None:
        raise ValueError(f"task.{info.field_name} is not a field of this request")

    @field_validator("n")
    @classmethod
    def _is_one(cls, value: int) -> int:
        if value != 1:
            raise ValueError(f"task.n must be 1, as a row has one continuation, not {value}")
        return value


class ExtractTask(Body):
    """Whether a model has an item by heart: of its first tokens, does it continue as the item does?

    Greedy decoding from the first ``prompt_tokens`` ids of an item, compared with the next
    ``tokens``. One pass that scores tells the same as generation, as both have the same bits.
    """

    type: Literal["extract"] = "extract"
    prompt_tokens: Annotated[Integer, Field(ge=1, le=MAX_EXTRACT)] = 32
    tokens: Annotated[Integer, Field(ge=1, le=MAX_EXTRACT)] = 32
    share: StrictBool = False
    """Whether to generate, too, and tell the share of tokens that are in their places."""


Task = Annotated[
    ScoreTask | GenerateTask | ExtractTask | ActivationsTask, Field(discriminator="type")
]


def _typed(value: Any) -> Any:
    """A task without a type is ``score``, and its name alone is enough."""
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, dict) and value.get("type") is None:
        return {**value, "type": "score"}
    return value


def _steps(value: Any) -> Any:
    if is_ids(value):
        if len(value) > MAX_STEPS:
            raise ValueError(f"steps has {len(value)} entries, but the limit is {MAX_STEPS}")
        return ",".join(map(str, value))
    return value


Steps = Annotated[StrictStr, BeforeValidator(_steps), schema(STRING_SCHEMA, IDS_SCHEMA)]
Ids = Annotated[tuple[StrictStr, ...], Field(min_length=1, max_length=MAX_STEPS)]
Items = Annotated[tuple[Item, ...], Field(min_length=1)]


class SweepSpec(Body):
    """A sweep of any size. ``parse`` of ``protocol.parsing`` makes it of JSON's values."""

    model: StrictStr | None = None
    """A name without a revision; by default that of the server."""
    steps: Steps = ALL
    """``all``, ``log``, a list, or ``from:to:by``."""
    models: Ids | None = None
    """Ids, instead of both."""
    task: Annotated[Task, BeforeValidator(_typed)] = ScoreTask()
    items: Items
    priority: Annotated[Integer, Field(ge=-20, le=20)] = PRIORITY

    @model_validator(mode="after")
    def _names_checkpoints_once(self) -> Self:
        if self.models is not None and not {"model", "steps"}.isdisjoint(self.model_fields_set):
            raise ValueError("models goes without model and steps")
        return self

    @cached_property
    def key(self) -> str:
        """64 hex digits over task and items: with equal weights, equal keys mean equal rows.

        Which checkpoints are asked for is no part of it, so that what is known of one stays true
        when more are asked for.
        """
        digest = hashlib.sha256(_canonical([_VERSION, self.task.model_dump(mode="json")]))
        for item in self.items:
            digest.update(_canonical([item.id, item.prompt, item.continuation]))
        return digest.hexdigest()

    def bare_name(self, default: str) -> str:
        """Of the model whose steps are asked for; ``default`` answers where none is named.

        Raises InvalidRequest and ModelNotFound.
        """
        if self.model is None and not _is_id(default):
            raise InvalidRequest("model is required: what answers here has no steps", param="model")
        model = parse(default.partition("@")[0] if self.model is None else self.model)
        if model.revision != MAIN:
            raise InvalidRequest(
                f"model must be a name without a revision, not {model}; models takes ids",
                param="model",
            )
        return model.name

    def step_ids(self, name: str, there: Collection[int]) -> list[str]:
        """Ids of the steps of a model, in the order of training; ``there`` are those at hand.

        ``all`` and ``log`` mean some of these, numbers mean themselves. Raises InvalidRequest.
        """
        model = ModelId(name)
        if self.steps not in (ALL, LOG):
            wanted = steps_of(self.steps, model, lambda: there)
        elif not there:
            raise InvalidRequest(f"steps {self.steps!r}: no step of {name} is here", param="steps")
        else:
            wanted = [one for one in steps_of(self.steps, model, lambda: there) if one in there]
        return [str(model.at(f"step{step}")) for step in wanted]


class SweepRequest(SweepSpec):
    """A sweep that a server takes."""

    items: Annotated[Items, Field(max_length=MAX_ITEMS)]


def check_rows(items: int, checkpoints: int) -> None:
    """Raise InvalidRequest where a server would have to tell too much."""
    if items * checkpoints > MAX_ROWS:
        raise InvalidRequest(
            f"{items:,} items at {checkpoints:,} checkpoints are {items * checkpoints:,} rows, but "
            f"the limit of one sweep is {MAX_ROWS:,}; 'pythia-bento sweep' writes files without "
            "that limit",
            param="items",
        )


def _is_id(text: str) -> bool:
    try:
        parse(text)
    except ModelNotFound:
        return False
    return True


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
