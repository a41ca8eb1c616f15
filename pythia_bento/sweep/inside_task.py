"""The task ``activations``: what of its inside each checkpoint shows of each item."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pythia_bento.protocol.activations import Run
from pythia_bento.protocol.inside import Captures, ProjectOf
from pythia_bento.protocol.interventions import Interventions, LogitsOf
from pythia_bento.protocol.sampling import Integer, Sampling

_NO_TENSOR = "must be a list of numbers, as a sweep has no tensors beside it"


class ActivationsTask(Sampling):
    """As ``/v1/activations`` with each item's prompt alone, with the same bits.

    Vectors and directions are lists of numbers. Where a server tells the rows, a row has at most
    ``here.MAX_NUMBERS`` numbers: what reductions leave, and not whole residual streams.
    """

    type: Literal["activations"]
    capture: Captures = ()
    interventions: Interventions = ()
    logits: LogitsOf | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_tokens: Integer = 0
    seed: Integer = 0

    @field_validator("priority", "prompt_logprobs", "logprobs")
    @classmethod
    def _is_not_of_a_row(cls, value: int | None, info: ValidationInfo) -> int | None:
        raise ValueError(f"task.{info.field_name} is not a field of this request")

    @field_validator("n", "best_of")
    @classmethod
    def _is_one(cls, value: int | None) -> int | None:
        if value not in (None, 1):
            raise PydanticCustomError("one", "must be 1, as what is captured is of one text")
        return value

    @field_validator("capture")
    @classmethod
    def _has_its_directions(cls, value: Captures) -> Captures:
        for one in value:
            if isinstance(one.reduce, ProjectOf) and isinstance(one.reduce.project, str):
                raise PydanticCustomError("no_tensor", f"[...].reduce.project {_NO_TENSOR}")
        return value

    @field_validator("interventions")
    @classmethod
    def _has_its_vectors(cls, value: Interventions) -> Interventions:
        if any(isinstance(one.vector, str) for one in value):
            raise PydanticCustomError("no_tensor", f"[...].vector {_NO_TENSOR}")
        return value

    def body(self, prompt: Any, priority: int) -> dict[str, Any]:
        """Of ``/v1/activations``, for one item."""
        fields = self.model_dump(mode="json", exclude={"type"}, exclude_unset=True)
        return {**fields, "prompts": [prompt], "seed": self.seed, "priority": priority}


def numbers_of(run: Run) -> int:
    """How many values a row has."""
    return sum(stored.raw().size for stored in run.stored.values())
