"""Every wrong request gets one clear sentence that names field and limit, and costs nothing."""

from __future__ import annotations

import pytest

from pythia_bento.runtime.runner import PythiaRunner
from tests.unit.conftest import MAX_BODY

BAD = [
    # (body or raw bytes, status, param, words of the message)
    (b'{"prompt": "a"', 400, None, ["not valid JSON", "line 1"]),
    (b"", 400, None, ["not valid JSON"]),
    (b"[1, 2]", 400, None, ["the body must be a JSON object"]),
    (b'{"prompt": "a", "temperature": NaN}', 400, None, ["not valid JSON"]),
    (b'{"prompt": "a", "temperature": 1e999}', 400, "temperature", ["finite"]),
    (b'{"prompt": "a", "temperature": -Infinity}', 400, None, ["not valid JSON"]),
    (b'{"prompt": "a", "seed": ' + b"1" * 5000 + b"}", 400, None, ["not valid JSON"]),
    (b'{"prompt": "a", "seed": ' + b"1" * 4200 + b"}", 400, "seed", ["seed", "not 1111"]),
    (b'{"prompt": "\\ud800x"}', 400, None, ["lone surrogate"]),
    (b'{"prompt": "x\\udc00"}', 400, None, ["lone surrogate"]),
    (b'{"prompt": "\xed\xa0\x80"}', 400, None, ["lone surrogate"]),
    (b'{"prompt": "\xff"}', 400, None, ["bytes not UTF-8"]),
    (b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, None, ["recursion"]),
    (b'{"prompt": "' + b"a" * MAX_BODY + b'"}', 413, None, [str(MAX_BODY)]),
    ({}, 400, "prompt", ["prompt is required"]),
    ({"prompt": None}, 400, "prompt", ["prompt is required"]),
    ({"prompt": ""}, 400, "prompt", ["prompt is empty"]),
    ({"prompt": []}, 400, "prompt", ["not empty"]),
    ({"prompt": [[]]}, 400, "prompt", ["prompt is empty"]),
    ({"prompt": ["a", ""]}, 400, "prompt", ["prompt is empty"]),
    ({"prompt": 5}, 400, "prompt", ["must be a string"]),
    ({"prompt": ["a", [1]]}, 400, "prompt", ["must be a string"]),
    ({"prompt": [1, 2.0]}, 400, "prompt", ["must be a string"]),
    ({"prompt": [1, True]}, 400, "prompt", ["must be a string"]),
    ({"prompt": ["a"] * 2049}, 400, "prompt", ["2049", "2048"]),
    ({"prompt": [1, 268]}, 400, "prompt", ["268", "0 to 267"]),
    ({"prompt": [-1]}, 400, "prompt", ["-1", "0 to 267"]),
    ({"prompt": [5] * 65}, 400, "prompt", ["65 tokens", "64 tokens"]),
    ({"max_tokens": 65}, 400, "max_tokens", ["max_tokens is 65", "context is 64"]),
    ({"max_tokens": -1}, 400, "max_tokens", ["max_tokens", "at least 0", "-1"]),
    ({"max_tokens": 1.5}, 400, "max_tokens", ["max_tokens", "integer", "1.5"]),
    ({"max_tokens": "5"}, 400, "max_tokens", ["max_tokens", "integer", "'5'"]),
    ({"max_tokens": True}, 400, "max_tokens", ["max_tokens", "integer"]),
    ({"max_tokens": 10**19}, 400, "max_tokens", ["max_tokens", "context"]),
    ({"max_tokens": 10**30}, 400, "max_tokens", ["max_tokens", f"equal to {10**20}"]),
    (b'{"prompt": "a", "max_tokens": ' + b"9" * 4300 + b"}", 400, "max_tokens", ["equal to"]),
    ({"min_tokens": 17}, 400, "min_tokens", ["min_tokens", "0 and 16"]),
    ({"temperature": -0.1}, 400, "temperature", ["temperature", "-0.1"]),
    ({"temperature": "hot"}, 400, "temperature", ["temperature", "number", "'hot'"]),
    ({"top_p": 0}, 400, "top_p", ["top_p", "above 0"]),
    ({"top_p": 1.1}, 400, "top_p", ["top_p", "0 and 1", "1.1"]),
    ({"min_p": 2}, 400, "min_p", ["min_p", "0 and 1"]),
    ({"top_k": -2}, 400, "top_k", ["top_k", "0 and 2147483647"]),
    ({"top_k": 2**31}, 400, "top_k", ["top_k", "2147483648"]),
    ({"n": 0}, 400, "n", ["n must be", "1 and 128"]),
    ({"n": 0, "best_of": 2}, 400, "n", ["n must be", "1 and 128", "0"]),
    ({"n": 129}, 400, "n", ["n must be", "1 and 128"]),
    ({"prompt": ["a"] * 64, "n": 65}, 400, "prompt", ["64 prompts", "4160 sequences", "4096"]),
    ({"seed": 2**64}, 400, "seed", ["seed"]),
    ({"seed": 0.5}, 400, "seed", ["seed", "integer"]),
    ({"logprobs": 21}, 400, "logprobs", ["logprobs", "0 and 20", "21"]),
    ({"logprobs": True}, 400, "logprobs", ["logprobs", "integer"]),
    ({"stop": 3}, 400, "stop", ["stop must be a string"]),
    ({"stop": ["a", 3]}, 400, "stop", ["stop must be a string"]),
    ({"stop": [""]}, 400, "stop", ["1 to 256 characters"]),
    ({"stop": list("abcdefghijklmnopq")}, 400, "stop", ["17 strings", "limit is 16"]),
    ({"stop_token_ids": [268]}, 400, "stop_token_ids", ["268", "0 to 267"]),
    ({"stop_token_ids": "a"}, 400, "stop_token_ids", ["list of token ids"]),
    ({"logit_bias": {"x": 1}}, 400, "logit_bias", ["logit_bias must be an object"]),
    ({"logit_bias": {"5": 10**400}}, 400, "logit_bias", ["logit_bias must be an object"]),
    ({"logit_bias": {"5" * 5000: 1}}, 400, "logit_bias", ["logit_bias must be an object"]),
    ({"temperature": 10**400}, 400, "temperature", ["temperature", "valid number"]),
    ({"logit_bias": {"5": "1"}}, 400, "logit_bias", ["logit_bias must be an object"]),
    ({"logit_bias": [5]}, 400, "logit_bias", ["logit_bias must be an object"]),
    ({"logit_bias": {"268": 1}}, 400, "logit_bias", ["268"]),
    ({"logit_bias": {"5": 101}}, 400, "logit_bias", ["-100 and 100", "101"]),
    ({"echo": "yes"}, 400, "echo", ["echo", "boolean", "'yes'"]),
    ({"stream": 1}, 400, "stream", ["stream", "boolean"]),
    ({"stream_options": {}}, 400, "stream_options", ["stream_options", "stream is true"]),
    (
        {"stream": True, "stream_options": {"x": 1}},
        400,
        "stream_options",
        ["stream_options.x is not a field"],
    ),
    ({"stream": True, "max_tokens": 999}, 400, "max_tokens", ["context is 64"]),
    ({"user": 7}, 400, "user", ["user", "string"]),
    ({"best_of": 129}, 400, "best_of", ["best_of must be", "1 and 128", "129"]),
    ({"best_of": 1, "n": 2}, 400, "best_of", ["best_of must be at least n", "2"]),
    ({"best_of": 0}, 400, "best_of", ["best_of must be at least n"]),
    ({"best_of": 2, "stream": True}, 400, "stream", ["stream must be false", "best_of"]),
    ({"presence_penalty": 2.1}, 400, "presence_penalty", ["-2 and 2", "2.1"]),
    ({"frequency_penalty": -3}, 400, "frequency_penalty", ["-2 and 2", "-3"]),
    ({"repetition_penalty": 0}, 400, "repetition_penalty", ["0.01 and 100", "not 0"]),
    ({"repetition_penalty": "1"}, 400, "repetition_penalty", ["number", "'1'"]),
    ({"prompt_logprobs": 21}, 400, "prompt_logprobs", ["0 and 20", "21"]),
    ({"prompt_logprobs": -1}, 400, "prompt_logprobs", ["0 and 20", "-1"]),
    ({"truncate_prompt_tokens": 0}, 400, "truncate_prompt_tokens", ["-1 or between 1 and 64"]),
    ({"truncate_prompt_tokens": 65}, 400, "truncate_prompt_tokens", ["1 and 64", "65"]),
    ({"skip_special_tokens": 1}, 400, "skip_special_tokens", ["boolean"]),
    ({"return_token_ids": "yes"}, 400, "return_token_ids", ["boolean"]),
    ({"suffix": "!"}, 400, "suffix", ['suffix is not supported; leave it out or send ""']),
    ({"use_beam_search": True}, 400, "use_beam_search", ["not supported", "send false"]),
    ({"length_penalty": True}, 400, "length_penalty", ["not supported", "send 1"]),
    ({"priority": 21}, 400, "priority", ["between -20 and 20", "21"]),
    ({"priority": "high"}, 400, "priority", ["integer"]),
    ({"response_format": {"type": "xml"}}, 400, "response_format", ['must be {"type": "text"}']),
    ({"allowed_token_ids": [5]}, 400, "allowed_token_ids", ["is not supported; leave it out"]),
    ({"guided_json": []}, 400, "guided_json", ["must be a JSON schema", "not []"]),
    ({"guided_regex": "("}, 400, "guided_regex", ["guided_regex cannot be followed: ", "regex"]),
    ({"logits_processors": []}, 400, "logits_processors", ["not supported"]),
    ({"temprature": 1}, 400, "temprature", ["temprature is not a field"]),
    ({"t" * 5000: 1}, 400, "t" * 97, ["is not a field"]),
    ({"model": "m" * 5000}, 404, "model", ["is not served"]),
    ({"model": "gpt-4"}, 404, "model", ["'gpt-4' is not served", "toy@step3"]),
    ({"model": 4}, 400, "model", ["model", "string"]),
]


@pytest.mark.parametrize(("body", "status", "param", "words"), BAD)
async def test_bad_completion(client, runner: PythiaRunner, body, status, param, words) -> None:
    if isinstance(body, bytes):
        response = await client.post("/completions", content=body)
    else:
        base = {} if body in ({}, {"prompt": None}) else {"prompt": "a"}
        response = await client.post("/completions", json=base | body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert all(word in error["message"] for word in words), error["message"]
    assert len(error["message"]) < 300 and "\n" not in error["message"]
    stats = runner.stats()
    assert (stats.prompt_tokens, stats.blocks_used, stats.waiting) == (0, 0, 0)


async def test_a_chunked_body_over_the_limit(client) -> None:
    async def chunks():
        for _ in range(20):
            yield b" " * (MAX_BODY // 10)

    response = await client.post("/completions", content=chunks())
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nothing", 404, "there is no /v1/nothing"),
        ("POST", "/nothing", 404, "there is no /v1/nothing"),
        ("GET", "/completions", 405, "/v1/completions does not allow GET"),
        ("POST", "/models", 405, "/v1/models does not allow POST"),
    ],
)
async def test_wrong_paths_and_methods(client, method, path, status, words) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["message"] == words
    assert ("allow" in response.headers) == (status == 405)
