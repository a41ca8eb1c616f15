"""What clients may send. Types are strict, unknown fields are refused, null means the default.

Ranges that depend on the model are checked by ``engine.validate``, once for all transports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
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
from pythia_bento.errors import InvalidRequest

MAX_PROMPTS = 2048

Ids = tuple[int, ...]
Prompt = str | Ids


def is_ids(value: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of integers, perhaps empty."""
    # type() rather than isinstance: a bool is no token id.
    return isinstance(value, list) and set(map(type, value)) <= {int}


def _prompt(value: Any) -> Prompt:
    if isinstance(value, str):
        return value
    if is_ids(value) and value:
        return tuple(value)
    raise ValueError("prompt must be a string or a list of token ids, and not empty")


def _prompts(value: Any) -> list[Prompt]:
    if isinstance(value, str):
        return [value]
    if is_ids(value) and value:
        return [tuple(value)]
    if isinstance(value, list) and len(value) > MAX_PROMPTS:
        raise ValueError(f"prompt has {len(value)} entries, but the limit is {MAX_PROMPTS}")
    if isinstance(value, list) and value:
        if all(isinstance(part, str) for part in value):
            return value
        if all(map(is_ids, value)):
            return [tuple(ids) for ids in value]
    raise ValueError(
        "prompt must be a string, a list of strings, a list of token ids or a list of lists of "
        "token ids, and not empty"
    )


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
    try:
        return tuple((_id(key), _real(bias)) for key, bias in value.items())
    except (AttributeError, OverflowError, TypeError, ValueError):
        raise ValueError("logit_bias must be an object of token ids and numbers") from None


def _id(key: str) -> int:
    if not key.isascii() or not key.isdigit():
        raise ValueError
    return int(key)


def _real(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError
    return float(value)


def schema(*kinds: dict[str, Any]) -> WithJsonSchema:
    """How a hand-written validator's field is described."""
    return WithJsonSchema({"anyOf": list(kinds)} if len(kinds) > 1 else kinds[0])


_STRING: dict[str, Any] = {"type": "string"}
_STRINGS: dict[str, Any] = {"type": "array", "items": _STRING}
IDS_SCHEMA: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}
_LISTS: dict[str, Any] = {"type": "array", "items": IDS_SCHEMA}
_BIAS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "number"}}

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
OnePrompt = Annotated[Any, BeforeValidator(_prompt), schema(_STRING, IDS_SCHEMA)]
Prompts = Annotated[Any, BeforeValidator(_prompts), schema(_STRING, _STRINGS, IDS_SCHEMA, _LISTS)]
Stop = Annotated[Any, BeforeValidator(_strings), schema(_STRING, _STRINGS)]
StopIds = Annotated[Any, BeforeValidator(_stop_ids), schema(IDS_SCHEMA)]
Bias = Annotated[Any, BeforeValidator(_bias), schema(_BIAS)]


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
    """How to continue a prompt: the fields of ``SamplingParams``, and what is made of its answers.

    Names and meanings are OpenAI's, or vLLM's where OpenAI has none.
    """

    max_tokens: StrictInt = 16
    min_tokens: StrictInt = 0
    temperature: Number = 1.0
    top_k: StrictInt = 0
    top_p: Number = 1.0
    min_p: Number = 0.0
    presence_penalty: Number = 0.0
    frequency_penalty: Number = 0.0
    repetition_penalty: Number = 1.0
    n: StrictInt = 1
    best_of: StrictInt | None = None
    """Continuations to make, of which the ``n`` with the highest mean log-probability answer."""
    seed: StrictInt = 0
    logprobs: StrictInt | None = None
    prompt_logprobs: StrictInt | None = None
    stop: Stop = ()
    stop_token_ids: StopIds = ()
    include_stop_str_in_output: StrictBool = False
    ignore_eos: StrictBool = False
    logit_bias: Bias = ()
    skip_special_tokens: StrictBool = True
    priority: StrictInt = 0
    truncate_prompt_tokens: StrictInt | None = None
    """Keep this many of the prompt's last tokens; -1 is all that fit beside ``max_tokens``."""

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
            seed=self.seed,
            logprobs=0 if is_ranked else self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            stop=self.stop,
            stop_token_ids=self.stop_token_ids,
            ignore_eos=self.ignore_eos,
            logit_bias=self.logit_bias,
            skip_special_tokens=self.skip_special_tokens,
            include_stop_str_in_output=self.include_stop_str_in_output,
        )


class StreamOptions(Body):
    """OpenAI's options of a stream, and vLLM's."""

    include_usage: StrictBool = False
    continuous_usage_stats: StrictBool = False
    """Whether every event has the usage so far; without ``include_usage`` none has."""


# Fields of OpenAI's and vLLM's that cannot be honoured, and the value that changes nothing: null
# for those where every other value would.
NEUTRAL: dict[str, Any] = {
    "suffix": "",
    "use_beam_search": False,
    "length_penalty": 1,
    "response_format": {"type": "text"},
    **dict.fromkeys(
        (
            *("allowed_token_ids", "bad_words", "cache_salt", "guided_choice", "guided_grammar"),
            *("guided_json", "guided_regex", "kv_transfer_params", "logits_processors"),
            *("prompt_embeds", "request_id", "structured_outputs", "vllm_xargs"),
        )
    ),
}


class CompletionRequest(Sampling):
    """OpenAI's ``/v1/completions`` with vLLM's additions."""

    prompt: Prompts
    model: StrictStr | None = None
    echo: StrictBool = False
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    user: StrictStr | None = None
    return_token_ids: StrictBool = False
    return_tokens_as_token_ids: StrictBool = False
    """Whether ``logprobs`` names tokens ``token_id:<id>``, so that no two look alike."""
    # Either value gives the same with Pythia's tokenizer: it adds no token to a prompt and puts
    # no space anywhere.
    add_special_tokens: StrictBool = True
    spaces_between_special_tokens: StrictBool = True

    @model_validator(mode="before")
    @classmethod
    def _only_neutral(cls, data: Any) -> Any:
        """Drop what changes nothing; raises InvalidRequest, which pydantic lets through."""
        if not isinstance(data, Mapping):
            return data
        for field, neutral in NEUTRAL.items():
            value = data.get(field)
            if value is not None and not _is_same(value, neutral):
                raise InvalidRequest(_unsupported(field, neutral), param=field)
        return {field: value for field, value in data.items() if field not in NEUTRAL}

    @field_validator("stream")
    @classmethod
    def _is_not_ranked(cls, value: bool, info: ValidationInfo) -> bool:
        n = info.data.get("n", 1)
        if value and (info.data.get("best_of") or n) > n:
            raise ValueError("stream must be false when best_of is above n")
        return value

    @field_validator("stream_options")
    @classmethod
    def _goes_with_stream(cls, value: Any, info: ValidationInfo) -> Any:
        if not info.data.get("stream", True):
            raise ValueError("stream_options is only allowed when stream is true")
        return value

    def sampling_params(self) -> SamplingParams:
        """With ``echo``, ``logprobs`` are wanted of the prompt too."""
        params = super().sampling_params()
        wanted = (self.prompt_logprobs, self.logprobs if self.echo else None)
        counts = [count for count in wanted if count is not None]
        return replace(params, prompt_logprobs=max(counts)) if counts else params


def _is_same(value: Any, neutral: Any) -> bool:
    return bool(value == neutral) and isinstance(value, bool) == isinstance(neutral, bool)


def _unsupported(field: str, neutral: Any) -> str:
    instead = "" if neutral is None else f" or send {json.dumps(neutral)}"
    return f"{field} is not supported; leave it out{instead}"


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
