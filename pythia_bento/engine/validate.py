"""Refuses requests that can never succeed: each with one sentence naming field and limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pythia_bento.engine.inside_limits import check_capture, check_interventions
from pythia_bento.engine.params import INTEGERS, NUMBERS, Request, SamplingParams
from pythia_bento.engine.tokenizer import check_unicode
from pythia_bento.errors import ContextLengthExceeded, InvalidRequest, shown
from pythia_bento.model.config import ModelConfig

_KINDS = (int, float)  # a union would be made anew for each look
_PLAIN_NUMBERS = ("top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")

MAX_LOGIT_BIAS = 1024  # entries of a request
MAX_ALTERNATIVES = 2**20  # of all tokens of a request: each takes 100 bytes until it is answered


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for."""

    num_tokens: int
    """Ids from here on have no token: refused everywhere, even where the embedding has rows."""
    max_positions: int
    """The model's context: prompt and generated tokens."""
    cache_tokens: int
    """Tokens that the whole KV cache holds; the last generated token needs no place in it."""
    max_batch_size: int = 64
    """Sequences in a step: no limit of a request, but what others have to know of the engine."""
    config: ModelConfig | None = None
    """The model's; None where nothing of its inside can be asked for."""
    max_prompt_tokens: int | None = None  # None: the context
    max_n: int = 128
    max_sequences: int = 4096
    max_text_chars: int = 2**18
    max_logprobs: int = 20
    max_stop: int = 16
    max_stop_chars: int = 256
    max_stop_token_ids: int = 64
    max_logit_bias: int = MAX_LOGIT_BIAS

    def room(self, max_tokens: int) -> int:
        """Prompt tokens that fit beside ``max_tokens``; may be below 1."""
        context = min(self.max_positions, self.cache_tokens + min(max_tokens, 1))
        return context - max_tokens

    def integer_range(self, field: str) -> tuple[int, int]:
        """Lowest and highest value of one of ``INTEGERS``."""
        low, high = INTEGERS[field]
        return low, getattr(self, high) if isinstance(high, str) else high


def validate(request: Request, limits: Limits) -> None:
    """Raise InvalidRequest, or ContextLengthExceeded, with ``param`` set to the field at fault."""
    params = request.params
    check_integer("n", request.n, limits)
    check_integer("priority", request.priority, limits)
    _check_lengths(request, limits)
    check_ids("prompt", request.prompt, limits)
    _check_numbers(params, limits)
    check_alternatives(alternatives_of(request))
    _check_stops(params, limits)
    _check_bias(params, limits)
    if request.capture is not None or request.interventions is not None:
        _check_inside(request, limits)


def check_integer(field: str, value: int, limits: Limits) -> None:
    """Raise InvalidRequest unless one of ``INTEGERS`` is in its range."""
    low, high = limits.integer_range(field)
    if type(value) is not int or not low <= value <= high:
        _integer(field, value, low, high)


def check_sequences(prompts: int, each: int, limits: Limits) -> None:
    """Raise InvalidRequest when one request of a client asks for too many sequences."""
    if prompts * each > limits.max_sequences:
        raise InvalidRequest(
            f"{prompts} prompts with {each} continuations each are {prompts * each} sequences, but "
            f"the limit is {limits.max_sequences}",
            param="prompt",
        )


def alternatives_of(request: Request) -> int:
    """Alternatives that are returned with the tokens of a request at most.

    Those of the prompt count for every continuation, as each may be shown with them.
    """
    params = request.params
    generated = params.max_tokens * (params.logprobs or 0)
    return (generated + len(request.prompt) * (params.prompt_logprobs or 0)) * request.n


def check_alternatives(count: int) -> None:
    """Raise InvalidRequest when one request of a client asks for too many log-probabilities."""
    if count > MAX_ALTERNATIVES:
        raise InvalidRequest(
            f"logprobs asks for {count} alternatives of all tokens together, but the limit is "
            f"{MAX_ALTERNATIVES}",
            param="logprobs",
        )


def check_text(field: str, length: int, limits: Limits, what: str = "characters") -> None:
    """Raise InvalidRequest for a text that is too long to be tokenised, or to be put together."""
    if length > limits.max_text_chars:
        raise InvalidRequest(
            f"{field} has {length} {what}, but the limit is {limits.max_text_chars}", param=field
        )


def check_items(count: int, limits: Limits) -> None:
    """Raise InvalidRequest when one request asks for too many scores."""
    if count > limits.max_sequences:
        raise InvalidRequest(
            f"items has {count} entries, but the limit is {limits.max_sequences}", param="items"
        )


def _check_lengths(request: Request, limits: Limits) -> None:
    prompt, wanted = len(request.prompt), request.params.max_tokens
    context = limits.max_positions
    if prompt == 0:
        raise InvalidRequest("prompt is empty; it needs at least one token", param="prompt")
    if prompt > context:
        raise ContextLengthExceeded(
            f"prompt has {prompt} tokens, but the model's context is {context} tokens",
            param="prompt",
        )
    if limits.max_prompt_tokens is not None and prompt > limits.max_prompt_tokens:
        raise ContextLengthExceeded(
            f"prompt has {prompt} tokens, but the limit is {limits.max_prompt_tokens}",
            param="prompt",
        )
    _integer("max_tokens", wanted, 0)
    if prompt + wanted > context:
        raise ContextLengthExceeded(
            f"max_tokens is {wanted} and prompt has {prompt} tokens, together {prompt + wanted}, "
            f"but the model's context is {context} tokens",
            param="max_tokens",
        )
    if prompt + max(wanted - 1, 0) > limits.cache_tokens:
        raise ContextLengthExceeded(
            f"max_tokens is {wanted} and prompt has {prompt} tokens, together {prompt + wanted}, "
            f"but the server's KV cache holds {limits.cache_tokens} tokens",
            param="max_tokens",
        )


def _check_numbers(params: SamplingParams, limits: Limits) -> None:
    _integer("min_tokens", params.min_tokens, 0, params.max_tokens)
    check_integer("top_k", params.top_k, limits)
    check_integer("seed", params.seed, limits)
    for field in ("logprobs", "prompt_logprobs"):
        if (value := getattr(params, field)) is not None:
            check_integer(field, value, limits)
    if params.temperature != 0:
        _number("temperature", params.temperature, "0 or ")
    if params.top_p == 0:
        raise InvalidRequest("top_p must be above 0 and at most 1, not 0", param="top_p")
    for field in _PLAIN_NUMBERS:
        _number(field, getattr(params, field))


def _check_stops(params: SamplingParams, limits: Limits) -> None:
    _at_most("stop", "strings", params.stop, limits.max_stop)
    for string in params.stop:
        if not isinstance(string, str) or not 0 < len(string) <= limits.max_stop_chars:
            raise InvalidRequest(
                f"stop must hold strings of 1 to {limits.max_stop_chars} characters", param="stop"
            )
        check_unicode(string, "stop")
    _at_most("stop_token_ids", "ids", params.stop_token_ids, limits.max_stop_token_ids)
    check_ids("stop_token_ids", params.stop_token_ids, limits)


def _check_bias(params: SamplingParams, limits: Limits) -> None:
    ids = [id for id, _ in params.logit_bias]
    _at_most("logit_bias", "entries", ids, limits.max_logit_bias)
    check_ids("logit_bias", ids, limits)
    if len(set(ids)) < len(ids):
        raise InvalidRequest("logit_bias names a token id twice", param="logit_bias")
    for _, bias in params.logit_bias:
        _number("logit_bias", bias, subject="logit_bias values")


def _check_inside(request: Request, limits: Limits) -> None:
    if limits.config is None:
        raise InvalidRequest("this server does not show the inside of its model", param="capture")
    if request.interventions is not None:
        check_interventions(request.interventions, limits.config)
    if request.capture is not None:
        if request.n != 1:
            raise InvalidRequest(f"n must be 1 with a capture, not {request.n}", param="n")
        check_capture(request.capture, limits.config, limits.num_tokens)


def check_ids(field: str, ids: Sequence[int], limits: Limits) -> None:
    """Raise InvalidRequest, naming ``field``, for the first that is no token's id."""
    # type() rather than isinstance: a bool is no token id.
    if set(map(type, ids)) <= {int} and (
        not ids or (min(ids) >= 0 and max(ids) < limits.num_tokens)
    ):
        return
    for id in ids:
        if type(id) is not int or not 0 <= id < limits.num_tokens:
            raise InvalidRequest(
                f"{field} holds {shown(id)}, but token ids are integers from 0 to "
                f"{limits.num_tokens - 1}",
                param=field,
            )


def _at_most(field: str, what: str, values: Sequence[Any], limit: int) -> None:
    if len(values) > limit:
        raise InvalidRequest(
            f"{field} has {len(values)} {what}, but the limit is {limit}", param=field
        )


def _integer(field: str, value: Any, low: int, high: int | None = None) -> None:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"between {low} and {high}"
        raise InvalidRequest(
            f"{field} must be an integer {limits}, not {shown(value)}", param=field
        )


def _number(field: str, value: Any, also: str = "", subject: str | None = None) -> None:
    low, high = NUMBERS[field]
    is_number = isinstance(value, _KINDS) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequest(
            f"{subject or field} must be {also}between {low:g} and {high:g}, not {shown(value)}",
            param=field,
        )
