"""How a prompt is to be continued: the fields that all bodies share, and their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeGuard

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import override

from pythia_bento.engine.params import SamplingParams
from pythia_bento.engine.validate import MAX_LOGIT_BIAS
from pythia_bento.protocol.schemas import IDS_SCHEMA, STRING_SCHEMA, STRINGS_SCHEMA, schema
from pythia_bento.protocol.structured import ALIASES, Structured, without_aliases

Ids = tuple[int, ...]
Prompt = str | Ids


def is_ids(value: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of integers, perhaps empty."""
    # type() rather than isinstance: a bool is no token id.
    return isinstance(value, list) and set(map(type, value)) <= {int}


def _strings(value: Any) -> tuple[str, ...]:
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(part, str) for part in strings):
        raise ValueError("stop must be a string or a list of strings")
    return tuple(strings)


def _stop_ids(value: Any) -> Ids:
    if not is_ids(value):
        raise ValueError("stop_token_ids must be a list of token ids")
    return tuple(value)


def _bias(value: Any) -> tuple[tuple[int, float], ...]:
    if isinstance(value, Mapping) and len(value) > MAX_LOGIT_BIAS:
        raise ValueError(f"logit_bias has {len(value)} entries, but the limit is {MAX_LOGIT_BIAS}")
    try:
        return tuple((_id(key), _real(bias)) for key, bias in value.items())
    except (AttributeError, OverflowError, TypeError, ValueError):
        raise ValueError("logit_bias must be an object of token ids and numbers") from None


def _written(bias: tuple[tuple[int, float], ...]) -> dict[str, float]:
    return {str(id): value for id, value in bias}


def _id(key: str) -> int:
    if not key.isascii() or not key.isdigit():
        raise ValueError
    return int(key)


def _real(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError
    return float(value)


_BIAS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "number"}}

MAX_INTEGER = 10**20  # 20 digits: no message has to show more, and no sum comes near it
Integer = Annotated[int, Field(strict=True, ge=-MAX_INTEGER, le=MAX_INTEGER)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Stop = Annotated[Any, BeforeValidator(_strings), schema(STRING_SCHEMA, STRINGS_SCHEMA)]
StopIds = Annotated[Any, BeforeValidator(_stop_ids), schema(IDS_SCHEMA)]
# Written as it is read: where clients validate a body, what they write is validated again.
Bias = Annotated[Any, BeforeValidator(_bias), PlainSerializer(_written), schema(_BIAS)]


class Body(BaseModel):
    """Base of every request body."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def knows(cls, field: str) -> bool:
        """Whether a body may have it."""
        return field in cls.model_fields

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        """Leave null fields out, and all unknown ones but the first.

        One is enough for a refusal; pydantic would look for all, a million of them for seconds.
        """
        if not isinstance(data, Mapping):
            return data
        given, known = {k: v for k, v in data.items() if v is not None}, cls.model_fields
        unknown = [field for field in given if field not in known and not cls.knows(field)]
        for field in unknown[1:]:
            del given[field]
        return given


class Sampling(Body):
    """How to continue a prompt: the fields of ``SamplingParams``, and what is made of its answers.

    Names and meanings are OpenAI's, or vLLM's where OpenAI has none.
    """

    max_tokens: Integer = 16
    min_tokens: Integer = 0
    temperature: Number = 1.0
    top_k: Integer = 0
    top_p: Number = 1.0
    min_p: Number = 0.0
    presence_penalty: Number = 0.0
    frequency_penalty: Number = 0.0
    repetition_penalty: Number = 1.0
    n: Integer = 1
    best_of: Integer | None = None
    """Continuations to make, of which the ``n`` with the highest mean log-probability answer."""
    seed: Integer | None = None
    """Where there is none, ``handlers.requests.with_seed`` draws one."""
    logprobs: Integer | None = None
    prompt_logprobs: Integer | None = None
    stop: Stop = ()
    stop_token_ids: StopIds = ()
    include_stop_str_in_output: StrictBool = False
    ignore_eos: StrictBool = False
    logit_bias: Bias = ()
    skip_special_tokens: StrictBool = True
    priority: Integer = 0
    truncate_prompt_tokens: Integer | None = None
    """Keep this many of the prompt's last tokens; -1 is all that fit beside ``max_tokens``."""
    structured_outputs: Structured = None
    """What the text must be, as a ``Constraint``; ``ALIASES`` are other ways to say it."""

    @classmethod
    @override
    def knows(cls, field: str) -> bool:
        return field in ALIASES or super().knows(field)

    @model_validator(mode="before")
    @classmethod
    def _one_constraint(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or ALIASES.keys().isdisjoint(data):
            return data
        return without_aliases(data)

    @property
    def num_sequences(self) -> int:
        """Continuations to make of each prompt."""
        return self.n if self.best_of is None else self.best_of

    @field_validator("best_of")
    @classmethod
    def _at_least_n(cls, value: int | None, info: ValidationInfo) -> int | None:
        n = info.data.get("n", 1)
        if value is not None and value < n:
            raise ValueError(f"best_of must be at least n, which is {n}, not {value}")
        return value

    @property
    def draws(self) -> bool:
        """Whether the answer is left to chance, and so depends on the seed."""
        return self.temperature > 0 and self.max_tokens > 0

    def sampling_params(self) -> SamplingParams:
        """The same for the engine. Ranking takes the log-probability of every token."""
        is_ranked = self.num_sequences > self.n and self.logprobs is None
        return SamplingParams(
            max_tokens=self.max_tokens,
            min_tokens=self.min_tokens,
            temperature=self.temperature,
            top_k=0 if self.top_k == -1 else self.top_k,  # vLLM's clients mean "off" by -1
            top_p=self.top_p,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed or 0,
            logprobs=0 if is_ranked else self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            stop=self.stop,
            stop_token_ids=self.stop_token_ids,
            ignore_eos=self.ignore_eos,
            logit_bias=self.logit_bias,
            skip_special_tokens=self.skip_special_tokens,
            include_stop_str_in_output=self.include_stop_str_in_output,
            constraint=self.structured_outputs if self.max_tokens > 0 else None,
        )
