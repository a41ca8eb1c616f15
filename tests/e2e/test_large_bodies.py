"""The largest bodies that a server takes: the fixture for all tests fails where its loop stands."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.serving import HTTP, MAX_BODY, Server

SIZE = MAX_BODY - 2**16
BODIES: dict[str, Callable[[], bytes]] = {
    "lists": lambda: b'{"prompt": [' + b"[]," * (SIZE // 3) + b"[]]}",
    "lists in a list": lambda: b'{"prompt": [[' + b"[]," * (SIZE // 3) + b"[]]]}",
    "objects": lambda: b'{"items": [' + b"{}," * (SIZE // 3) + b"{}]}",
    "numbers": lambda: b'{"prompt": [' + b"7," * (SIZE // 2) + b"7]}",
    "fields": lambda: b"{" + b",".join(b'"%d":1' % number for number in range(SIZE // 11)) + b"}",
    "escapes": lambda: b'{"prompt": "' + b"\\u00e9" * (SIZE // 6) + b'"}',
    "text": lambda: json.dumps({"prompt": "a " * (SIZE // 2)}).encode(),
    "model": lambda: json.dumps({"prompt": "a", "model": "a" * SIZE}).encode(),
    "no end": lambda: b'{"prompt": "' + b"a" * SIZE,
}


@pytest.mark.parametrize("name", BODIES)
def test_they_are_refused_in_pieces(server: Server, name: str) -> None:
    body = BODIES[name]()
    for path in ("/v1/completions", "/generate", "/score", "/tokenize", "/detokenize"):
        answer = HTTP.post(f"{server.url}{path}", content=body, timeout=60)
        assert answer.status_code == 400, answer.text
        assert len(answer.json()["error"]["message"]) < 300


def test_good_ones_are_answered_in_pieces(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=300) as http:
        # Ten in all, which the engine computes once, but for the last token, which begins a block:
        # the body and the answer are as large.
        prompts = [[5 + number % 10] * 449 for number in range(1000)]
        answer = http.post("/v1/completions", json={"prompt": prompts, "max_tokens": 1})
        assert len(answer.json()["choices"]) == 1000
        text = "".join(map(chr, range(0x4E00, 0x4E00 + 2000))) * 131
        answer = http.post("/tokenize", json={"prompt": text, "return_token_strs": True})
        found = answer.json()
        assert len(found["token_strs"]) == found["count"] > 2 * len(text)
        ids = found["tokens"][: 2**18]
        text = http.post("/detokenize", json={"tokens": ids}).json()["prompt"]
        assert text.startswith("\u4e00\u4e01")
        fields = {"prompt": "a", "n": 100, "max_tokens": 100, "logprobs": 20, "ignore_eos": True}
        for path in ("/generate", "/v1/completions"):
            assert len(http.post(path, json=fields).content) > 2**20
