"""What clients may send. Types are strict, unknown fields are refused, null means the default.

Ranges that depend on the model are checked by ``engine.validate``, once for all transports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeGuard

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from pythia_bento.engine.params import SamplingParams

MAX_STOP = 4
MAX_PROMPTS = 2048

Ids = tuple[int, ...]
Prompt = str | Ids


def _is_ids(value: Any) -> TypeGuard[list[int]]:
    # type() rather than isinstance: a bool is no token id.
    return isinstance(value, list) and all(type(id) is int for id in value)


def _prompt(value: Any) -> Prompt:
    if isinstance(value, str):
        return value
    if _is_ids(value) and value:
        return tuple(value)
    raise ValueError("prompt must be a string or a list of token ids, and not empty")


def _prompts(value: Any) -> list[Prompt]:
    if isinstance(value, str) or (_is_ids(value) and value):
        return [_prompt(value)]
    if isinstance(value, list) and len(value) > MAX_PROMPTS:
        raise ValueError(f"prompt has {len(value)} entries, but the limit is {MAX_PROMPTS}")
    if isinstance(value, list) and value:
        if all(isinstance(part, str) for part in value):
            return value
        if all(map(_is_ids, value)):
            return [tuple(ids) for ids in value]
    raise ValueError(
        "prompt must be a string, a list of strings, a list of token ids or a list of lists of "
        "token ids, and not empty"
    )


def _strings(value: Any) -> tuple[str, ...]:
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(part, str) for part in strings):
        raise ValueError("stop must be a string or a list of strings")
    if len(strings) > MAX_STOP:
        raise ValueError(f"stop has {len(strings)} strings, but the limit is {MAX_STOP}")
    return tuple(strings)


def _stop_ids(value: Any) -> Ids:
    if not _is_ids(value):
        raise ValueError("stop_token_ids must be a list of token ids")
    return tuple(value)


def _bias(value: Any) -> tuple[tuple[int, float], ...]:
    try:
        return tuple((_id(key), _real(bias)) for key, bias in value.items())
    except (AttributeError, TypeError, ValueError):
        raise ValueError("logit_bias must be an object of token ids and numbers") from None


def _id(key: str) -> int:
    if not key.isascii() or not key.isdigit():
        raise ValueError
    return int(key)


def _real(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError
    return float(value)


def _schema(*kinds: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(kinds)} if len(kinds) > 1 else kinds[0])


_STRING: dict[str, Any] = {"type": "string"}
_STRINGS: dict[str, Any] = {"type": "array", "items": _STRING}
_IDS: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}
_LISTS: dict[str, Any] = {"type": "array", "items": _IDS}
_BIAS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "number"}}

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
OnePrompt = Annotated[Any, BeforeValidator(_prompt), _schema(_STRING, _IDS)]
Prompts = Annotated[Any, BeforeValidator(_prompts), _schema(_STRING, _STRINGS, _IDS, _LISTS)]
Stop = Annotated[Any, BeforeValidator(_strings), _schema(_STRING, _STRINGS)]
StopIds = Annotated[Any, BeforeValidator(_stop_ids), _schema(_IDS)]
Bias = Annotated[Any, BeforeValidator(_bias), _schema(_BIAS)]


class Body(BaseModel):
    """Base of every request body."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {field: value for field, value in data.items() if value is not None}


class Sampling(Body):
    """How to continue a prompt; one field for each of ``SamplingParams``."""

    max_tokens: StrictInt = 16
    min_tokens: StrictInt = 0
    temperature: Number = 1.0
    top_k: StrictInt = 0
    top_p: Number = 1.0
    min_p: Number = 0.0
    n: StrictInt = 1
    seed: StrictInt = 0
    logprobs: StrictInt | None = None
    stop: Stop = ()
    stop_token_ids: StopIds = ()
    ignore_eos: StrictBool = False
    logit_bias: Bias = ()

    def sampling_params(self, prompt_logprobs: int | None = None) -> SamplingParams:
        """The same for the engine."""
        return SamplingParams(
            max_tokens=self.max_tokens,
            min_tokens=self.min_tokens,
            temperature=self.temperature,
            top_k=0 if self.top_k == -1 else self.top_k,  # vLLM's clients mean "off" by -1
            top_p=self.top_p,
            min_p=self.min_p,
            seed=self.seed,
            logprobs=self.logprobs,
            prompt_logprobs=prompt_logprobs,
            stop=self.stop,
            stop_token_ids=self.stop_token_ids,
            ignore_eos=self.ignore_eos,
            logit_bias=self.logit_bias,
        )


class StreamOptions(Body):
    """OpenAI's options of a stream."""

    include_usage: StrictBool = False


# Fields of OpenAI's and vLLM's that cannot be honoured, and the value that changes nothing.
NEUTRAL: dict[str, Any] = {
    "suffix": "",
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
}


class CompletionRequest(Sampling):
    """OpenAI's ``/v1/completions``."""

    prompt: Prompts
    model: StrictStr | None = None
    echo: StrictBool = False
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    user: StrictStr | None = None
    best_of: StrictInt | None = None
    suffix: StrictStr = ""
    presence_penalty: Number = 0.0
    frequency_penalty: Number = 0.0
    repetition_penalty: Number = 1.0

    @field_validator(*NEUTRAL)
    @classmethod
    def _is_neutral(cls, value: Any, info: ValidationInfo) -> Any:
        neutral = NEUTRAL[str(info.field_name)]
        if value != neutral:
            raise ValueError(
                f"{info.field_name} is not supported; leave it out or send {neutral!r}"
            )
        return value

    @field_validator("best_of")
    @classmethod
    def _is_n(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value != info.data.get("n", value):
            raise ValueError("best_of is not supported; leave it out or send the same as n")
        return value

    @field_validator("stream_options")
    @classmethod
    def _goes_with_stream(cls, value: Any, info: ValidationInfo) -> Any:
        if not info.data.get("stream", True):
            raise ValueError("stream_options is only allowed when stream is true")
        return value


class GenerateRequest(Sampling):
    """``/generate``: one prompt."""

    prompt: OnePrompt
    stream: StrictBool = False
    """Whether the answer comes in parts, as server-sent events."""


class ScoreItem(Body):
    """One text to score: log-probabilities of ``continuation`` after ``prompt``.

    Without a continuation every token of the prompt but the first is scored. The two are
    tokenised one by one, so a continuation that starts a word begins with its space.
    """

    prompt: OnePrompt
    continuation: OnePrompt | None = None
    logprobs: StrictInt = Field(0, ge=0)
    """Alternatives to return with each token."""
