"""validate: every limit has a sentence that names the field and the limit."""

from __future__ import annotations

import math

import pytest

from pythia_bento.engine.validate import Limits, validate
from pythia_bento.errors import ContextLengthExceeded, InvalidRequest
from tests.unit.engine.toy import request

LIMITS = Limits(num_tokens=268, max_positions=64, cache_tokens=48)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"max_tokens": 0, "prompt_logprobs": 20},
        {"temperature": 0, "seed": -(2**63), "top_k": 2**31 - 1},
        {"temperature": 100.0, "top_p": 1, "min_p": 0, "seed": 2**64 - 1},
        {"max_tokens": 45, "min_tokens": 45},
        {"max_tokens": 46},
        {"stop": ("x" * 256,) * 16, "stop_token_ids": (267,) * 64},
        {"logit_bias": ((0, -100), (267, 100.0)), "logprobs": 0},
        {"presence_penalty": -2, "frequency_penalty": 2.0, "repetition_penalty": 0.01},
    ],
)
def test_the_limits_themselves_are_allowed(params):
    validate(request(**params), LIMITS)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("max_tokens", -1, "max_tokens must be an integer at least 0, not -1"),
        ("max_tokens", 1.5, "max_tokens must be an integer at least 0, not 1.5"),
        ("min_tokens", 17, "min_tokens must be an integer between 0 and 16, not 17"),
        ("top_k", -1, "top_k must be an integer between 0 and 2147483647, not -1"),
        ("top_k", True, "top_k must be an integer between 0 and 2147483647, not True"),
        ("seed", 2**64, f"seed must be an integer between {-(2**63)} and {2**64 - 1}, not {2**64}"),
        ("logprobs", 21, "logprobs must be an integer between 0 and 20, not 21"),
        ("prompt_logprobs", -1, "prompt_logprobs must be an integer between 0 and 20, not -1"),
        ("temperature", -0.5, "temperature must be 0 or between 1e-06 and 100, not -0.5"),
        ("temperature", math.nan, "temperature must be 0 or between 1e-06 and 100, not nan"),
        ("temperature", math.inf, "temperature must be 0 or between 1e-06 and 100, not inf"),
        ("temperature", "1", "temperature must be 0 or between 1e-06 and 100, not '1'"),
        ("top_p", 0, "top_p must be above 0 and at most 1, not 0"),
        ("top_p", 1.01, "top_p must be between 0 and 1, not 1.01"),
        ("min_p", math.nan, "min_p must be between 0 and 1, not nan"),
        ("presence_penalty", 2.5, "presence_penalty must be between -2 and 2, not 2.5"),
        ("frequency_penalty", math.nan, "frequency_penalty must be between -2 and 2, not nan"),
        ("repetition_penalty", 0, "repetition_penalty must be between 0.01 and 100, not 0"),
        ("stop", ("a",) * 17, "stop has 17 strings, but the limit is 16"),
        ("stop", ("",), "stop must hold strings of 1 to 256 characters"),
        ("stop", ("x" * 257,), "stop must hold strings of 1 to 256 characters"),
        ("stop", ("\udc00",), "stop is not valid Unicode: lone surrogate at character 0"),
        ("stop_token_ids", (1,) * 65, "stop_token_ids has 65 ids, but the limit is 64"),
        (
            "stop_token_ids",
            (268,),
            "stop_token_ids holds 268, but token ids are integers from 0 to 267",
        ),
        ("logit_bias", ((5, 101),), "logit_bias values must be between -100 and 100, not 101"),
        (
            "logit_bias",
            ((5, -math.inf),),
            "logit_bias values must be between -100 and 100, not -inf",
        ),
        ("logit_bias", ((5, 1), (5, 2)), "logit_bias names a token id twice"),
        ("logit_bias", ((-1, 1),), "logit_bias holds -1, but token ids are integers from 0 to 267"),
    ],
)
def test_parameters_out_of_range(field, value, sentence):
    with pytest.raises(InvalidRequest) as caught:
        validate(request(**{field: value}), LIMITS)
    assert str(caught.value) == sentence
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ((), "prompt is empty; it needs at least one token"),
        ((3, -1), "prompt holds -1, but token ids are integers from 0 to 267"),
        ((3, 268), "prompt holds 268, but token ids are integers from 0 to 267"),
        ((3, True), "prompt holds True, but token ids are integers from 0 to 267"),
        (("x" * 99,), f"prompt holds '{'x' * 36}..., but token ids are integers from 0 to 267"),
    ],
)
def test_prompts(prompt, sentence):
    with pytest.raises(InvalidRequest) as caught:
        validate(request(prompt=prompt), LIMITS)
    assert str(caught.value) == sentence
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("n", [0, 129, 1.0])
def test_n(n):
    with pytest.raises(InvalidRequest, match="n must be an integer between 1 and 128"):
        validate(request(n=n), LIMITS)


@pytest.mark.parametrize(
    ("length", "max_tokens", "param", "sentence"),
    [
        (65, 1, "prompt", "prompt has 65 tokens, but the model's context is 64 tokens"),
        (
            60,
            5,
            "max_tokens",
            "max_tokens is 5 and prompt has 60 tokens, together 65, but the model's context is "
            "64 tokens",
        ),
        (
            40,
            10,
            "max_tokens",
            "max_tokens is 10 and prompt has 40 tokens, together 50, but the server's KV cache "
            "holds 48 tokens",
        ),
    ],
)
def test_lengths(length, max_tokens, param, sentence):
    with pytest.raises(ContextLengthExceeded) as caught:
        validate(request(prompt=(5,) * length, max_tokens=max_tokens), LIMITS)
    assert str(caught.value) == sentence
    assert (caught.value.param, caught.value.code) == (param, "context_length_exceeded")


@pytest.mark.parametrize("max_tokens", [0, 1, 2, 20, 48])
def test_room_is_the_longest_prompt_that_is_allowed(max_tokens):
    room = LIMITS.room(max_tokens)
    validate(request(prompt=(5,) * room, max_tokens=max_tokens, min_tokens=0), LIMITS)
    with pytest.raises(ContextLengthExceeded):
        validate(request(prompt=(5,) * (room + 1), max_tokens=max_tokens), LIMITS)
