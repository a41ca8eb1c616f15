"""What clients may send. Types are strict, unknown fields are refused, null means the default.

Ranges that depend on the model are checked by ``engine.validate``, once for all transports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import override

from pythia_bento.engine.params import SamplingParams
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.interventions import Interventions, LogitsOf
from pythia_bento.protocol.sampling import Body, Integer, Prompt, Sampling, is_ids
from pythia_bento.protocol.schemas import IDS_SCHEMA, STRING_SCHEMA, STRINGS_SCHEMA, schema

MAX_PROMPTS = 2048


def _prompt(value: Any, info: ValidationInfo) -> Prompt:
    if isinstance(value, str):
        return value
    if is_ids(value) and value:
        return tuple(value)
    field = info.field_name
    raise ValueError(f"{field} must be a string or a list of token ids, and not empty")


def _prompts(value: Any, info: ValidationInfo) -> list[Prompt]:
    field = info.field_name
    if isinstance(value, str):
        return [value]
    if is_ids(value) and value:
        return [tuple(value)]
    if isinstance(value, list) and len(value) > MAX_PROMPTS:
        raise ValueError(f"{field} has {len(value)} entries, but the limit is {MAX_PROMPTS}")
    if isinstance(value, list) and value:
        if all(isinstance(part, str) for part in value):
            return value
        if all(isinstance(part, tuple) or is_ids(part) for part in value):  # tuples were looked at
            return [tuple(ids) for ids in value]
    raise ValueError(
        f"{field} must be a string, a list of strings, a list of token ids or a list of lists of "
        "token ids, and not empty"
    )


def _tokens(value: Any) -> tuple[int, ...]:
    if not is_ids(value):
        raise ValueError("tokens must be a list of token ids")
    return tuple(value)


_LISTS: dict[str, Any] = {"type": "array", "items": IDS_SCHEMA}

OnePrompt = Annotated[Any, BeforeValidator(_prompt), schema(STRING_SCHEMA, IDS_SCHEMA)]
Prompts = Annotated[
    Any, BeforeValidator(_prompts), schema(STRING_SCHEMA, STRINGS_SCHEMA, IDS_SCHEMA, _LISTS)
]


class StreamOptions(Body):
    """OpenAI's options of a stream, and vLLM's."""

    include_usage: StrictBool = False
    continuous_usage_stats: StrictBool = False
    """Whether every event has the usage so far; without ``include_usage`` none has."""
    include_obfuscation: StrictBool = False
    """Whether filler in ``obfuscation`` hides how long each event's text is."""


# Fields of OpenAI's and vLLM's that cannot be honoured, and the value that changes nothing: null
# for those where every other value would.
NEUTRAL: dict[str, Any] = {
    "suffix": "",
    "use_beam_search": False,
    "length_penalty": 1,
    **dict.fromkeys(
        (
            *("allowed_token_ids", "bad_words", "cache_salt", "kv_transfer_params"),
            *("logits_processors", "prompt_embeds", "request_id", "vllm_xargs"),
        )
    ),
}


def _of_one_text(value: LogitsOf | None, info: ValidationInfo) -> LogitsOf | None:
    """Behind the fields that it looks at."""
    if value is not None and info.data.get("stream"):
        raise ValueError("logits must be left out when stream is true")
    texts = info.data.get("best_of") or info.data.get("n", 1)
    if value is not None and texts != 1:
        raise ValueError(f"n must be 1 when logits are asked for, not {texts}")
    return value


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
    interventions: Interventions = ()
    logits: LogitsOf | None = None

    _logits_are_of_one_text = field_validator("logits")(_of_one_text)

    @classmethod
    @override
    def knows(cls, field: str) -> bool:
        return field in NEUTRAL or super().knows(field)

    @model_validator(mode="before")
    @classmethod
    def _only_neutral(cls, data: Any) -> Any:
        return without_neutral(data, NEUTRAL) if isinstance(data, Mapping) else data

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


def without_neutral(data: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what changes nothing; raises InvalidRequest, which pydantic lets through."""
    for field, neutral in known.items():
        value = data.get(field)
        if value is not None and not _is_same(value, neutral):
            raise InvalidRequest(_unsupported(field, neutral), param=field)
    return {field: value for field, value in data.items() if field not in known}


def _is_same(value: Any, neutral: Any) -> bool:
    return bool(value == neutral) and isinstance(value, bool) == isinstance(neutral, bool)


def _unsupported(field: str, neutral: Any) -> str:
    instead = "" if neutral is None else f" or send {json.dumps(neutral)}"
    return f"{field} is not supported; leave it out{instead}"


class GenerateStreamRequest(Sampling):
    """``/generate_stream``: one prompt."""

    prompt: OnePrompt
    model: StrictStr | None = None
    interventions: Interventions = ()


class GenerateRequest(GenerateStreamRequest):
    """``/generate``: one prompt."""

    stream: StrictBool = False
    """Whether the answer comes in parts, as server-sent events."""
    logits: LogitsOf | None = None

    _logits_are_of_one_text = field_validator("logits")(_of_one_text)


class ScoreItem(Body):
    """One text to score: log-probabilities of ``continuation`` after ``prompt``.

    Without a continuation every token of the prompt but the first is scored. The two are
    tokenised one by one, so a continuation that starts a word begins with its space.
    """

    prompt: OnePrompt
    continuation: OnePrompt | None = None
    logprobs: Annotated[Integer, Field(ge=0)] = 0
    """Alternatives to return with each token."""
    model: StrictStr | None = None
    """Who is to score it, where that is another than of the whole request."""


class ScoreRequest(Body):
    """``/score``: items, each of which is validated by itself, so that a bad one fails alone."""

    items: Annotated[list[Any], Field(strict=True)]
    model: StrictStr | None = None


class LoadRequest(Body):
    """``/v1/models/load``: a checkpoint that is to come to the device."""

    model: StrictStr
    pin: StrictBool | None = None
    """Whether it stays there whatever else is asked for; by default that stays as it is."""


class UnloadRequest(Body):
    """``/v1/models/unload``: a checkpoint that is to leave the device."""

    model: StrictStr


class TokenizeRequest(Body):
    """``/tokenize``: a text, which may be empty."""

    prompt: StrictStr
    model: StrictStr | None = None
    add_special_tokens: StrictBool = True
    """Either value gives the same: Pythia's tokenizer adds no token to a text."""
    return_token_strs: StrictBool = False
    """Whether to return the tokens as the vocabulary spells them, too."""


class DetokenizeRequest(Body):
    """``/detokenize``: token ids."""

    tokens: Annotated[Any, BeforeValidator(_tokens), schema(IDS_SCHEMA)]
    model: StrictStr | None = None
