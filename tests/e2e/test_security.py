"""What docs/security.md says an attacker can try, tried on a real server.

The fixture ``server`` is one for all, and must be well after each test: what ends it, or holds its
blocks, fails the test that did it.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import unicodedata
import zlib
from pathlib import Path

import httpx
import pytest

from tests.e2e import raw_http
from tests.e2e.serving import HTTP, MAX_BODY, Server

POSTS = ("/generate", "/generate_stream", "/v1/completions", "/score", "/tokenize", "/detokenize")
OF_A_FILE = ("root:x:", "[build-system]", "def load_settings")


@pytest.fixture(scope="module")
def http(server: Server):
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield http


def body_for(path: str, prompt: object) -> dict[str, object]:
    """The smallest body of a path, with ``prompt`` as what the model is to read."""
    if path == "/score":
        return {"items": [{"prompt": prompt, "continuation": "a"}]}
    if path == "/detokenize":
        return {"tokens": prompt}
    sizes = {} if path == "/tokenize" else {"max_tokens": 1}
    return {"prompt": prompt, **sizes}


# --- Paths


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/playground/../../../pyproject.toml",
        "/playground/..%2f..%2f..%2fpyproject.toml",
        "/playground/%2e%2e/%2e%2e/settings.py",
        "/playground//etc/passwd",
        "/static_content/../../../../../../etc/passwd",
        "/static_content/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static_content/%252e%252e/%252e%252e/etc/passwd",
        "/static_content//etc/passwd",
        "/static_content/\\..\\..\\etc\\passwd",
        "/playground/playground.js%00.html",
        "/v1/models/../../../etc/passwd",
        "//etc/passwd",
    ],
)
def test_paths_lead_to_no_file_outside(server: Server, path: str) -> None:
    answer = raw_http.exchange(server.url, raw_http.request(f"GET {path} HTTP/1.1"))
    (status,) = raw_http.statuses(answer)
    assert 400 <= status < 500, answer
    assert not any(text in answer.decode("latin-1") for text in OF_A_FILE)


@pytest.mark.parametrize(
    "model", ["../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/x", "."]
)
def test_a_request_s_model_is_a_name_and_not_a_place(http: httpx.Client, model: str) -> None:
    answer = http.post("/v1/completions", json={"model": model, "prompt": "a", "max_tokens": 1})
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "model"


# --- Pickle, and other formats than JSON


class Makes:
    """Leaves a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("header", ["content-type", "payload-container", "accept"])
def test_no_pickle_is_read(http: httpx.Client, tmp_path: Path, path: str, header: str) -> None:
    mark = tmp_path / "unpickled"
    content = pickle.dumps(Makes(mark))
    headers = {header: "application/vnd.bentoml+pickle", "buffer-lengths": str(len(content))}
    answer = http.post(path, content=content, headers=headers)
    assert answer.status_code == (415 if header == "content-type" else 400)
    assert not mark.exists()
    pickle.loads(content)  # control: it would have
    assert mark.exists()


@pytest.mark.parametrize("path", POSTS)
def test_a_form_cannot_make_the_server_fetch_a_url(http: httpx.Client, path: str) -> None:
    fields = {"prompt": "http://127.0.0.1:1/secret", "items": "http://127.0.0.1:1/secret"}
    assert http.post(path, data=fields).status_code == 400
    files = {"prompt": ("a.txt", b"http://127.0.0.1:1/secret")}
    assert http.post(path, files=files).status_code == 400


# --- Bombs


BOMBS = {
    "nested lists": b'{"prompt": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
    "nested objects": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
    "nested and not closed": b'{"prompt": ' + b"[" * 190_000,
    "a number of 190,000 digits": b'{"prompt": "a", "seed": ' + b"9" * 190_000 + b"}",
    "an exponent": b'{"prompt": "a", "temperature": 1e999999999}',
    "too much by the last of many digits": b'{"prompt": "a", "top_p": 1.' + b"1" * 190_000 + b"}",
    "NaN": b'{"prompt": "a", "temperature": NaN}',
    "many unknown names": json.dumps({f"k{n}": n for n in range(10_000)}).encode(),
    "names that are the same": b'{"prompt": "a"' + b', "n": 999' * 10_000 + b"}",
    "a name of the kind that changes classes": b'{"prompt": "a", "__class__": {"x": 1}}',
    "no UTF-8": b'{"prompt": "\xff\xfe\xc0\x80"}',
    "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
    "a lone surrogate": b'{"prompt": "\\ud800"}',
    "nothing": b"",
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("what", BOMBS)
def test_json_bombs_are_refused(http: httpx.Client, path: str, what: str) -> None:
    content = BOMBS[what]
    assert len(content) <= MAX_BODY
    answer = http.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
    assert len(answer.content) < 2000  # not the body back


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies_are_not_unpacked(http: httpx.Client, coding: str, pack) -> None:
    bomb = pack(b'{"prompt": "' + b"a" * 50_000_000 + b'"}')
    assert len(bomb) < MAX_BODY
    answer = http.post("/generate", content=bomb, headers={"content-encoding": coding})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        [f"X-Long: {'a' * 1_000_000}"],
        [f"X-Long: {'a' * 70_000}"],
        [f"X-{number}: a" for number in range(20_000)],
        [f"Authorization: Bearer {'k' * 500_000}"],
        [f"Cookie: {'a=b; ' * 100_000}"],
        [f"traceparent: 00-{'f' * 100_000}-01"],
        [f"X-Request-Id: {'i' * 100_000}"],
    ],
    ids=["long", "just too long", "many", "key", "cookie", "traceparent", "request id"],
)
def test_header_bombs(server: Server, headers: list[str]) -> None:
    head = raw_http.request("GET /v1/models HTTP/1.1", *headers)
    answer = raw_http.exchange(server.url, head)
    assert raw_http.statuses(answer) in ([400], []), answer[:500]  # the end may outrun the answer
    assert len(answer) < 500  # nothing of it comes back
    assert HTTP.get(f"{server.url}/readyz").status_code == 200


def test_a_long_target_is_refused(server: Server) -> None:
    line = f"GET /v1/models?{'a' * 70_000} HTTP/1.1"
    answer = raw_http.exchange(server.url, raw_http.request(line))
    assert raw_http.statuses(answer) == [400]


def test_large_heads_within_the_limit_and_bodies_above_it_are_served(server: Server) -> None:
    """Control, and several requests on one connection: the limit is each one's own."""
    with httpx.Client(base_url=server.url, headers={"X-Long": "a" * 60_000}, timeout=60) as http:
        for _ in range(5):
            body = {"prompt": "a", "stop_token_ids": [1], "max_tokens": 1}
            content = json.dumps(body).encode() + b" " * 150_000
            assert http.post("/generate", content=content).status_code == 200
            assert http.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 5", "Content-Length: 40"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: \x0bchunked"],
        ["Content-Length: -1"],
        ["Content-Length: +5"],
        [f"Content-Length: {'9' * 5000}"],
        ["Content-Length: 0x10"],
        ["Content-Length : 5"],
        ["X: a\nContent-Length: 5"],
    ],
)
def test_two_readings_of_a_length_smuggle_nothing(server: Server, headers: list[str]) -> None:
    """A proxy that reads the other length must not find a second request answered here."""
    hidden = raw_http.request("GET /v1/models HTTP/1.1")
    outer = raw_http.request("POST /generate HTTP/1.1", *headers, body=hidden, close=False)
    answer = raw_http.exchange(server.url, outer)
    assert 200 not in raw_http.statuses(answer), answer[:500]


# --- Prompts


@pytest.mark.parametrize("path", ["/generate", "/v1/completions", "/score"])
@pytest.mark.parametrize(
    "prompt",
    ["a" * 190_000, "a " * 90_000, "\U0001f600" * 40_000, [1] * 60_000, "\n" * 90_000],
    ids=["letters", "words", "emoji", "ids", "newlines"],
)
def test_a_huge_prompt_is_refused_by_its_length(http: httpx.Client, path: str, prompt) -> None:
    content = json.dumps(body_for(path, prompt), ensure_ascii=False).encode()
    assert len(content) <= MAX_BODY
    answer = http.post(path, content=content)
    message = json.dumps(answer.json())
    assert "tokens" in message
    assert answer.status_code == 400 or (path, answer.status_code) == ("/score", 200)
    assert '"error"' in message
    assert len(message) < 2000


TEXTS = {
    "NUL": "a\0b",
    "control characters": "".join(map(chr, range(1, 32))),
    "right to left": "\u202eabc\u202c \u05d0\u05d1",
    "combining": "e" + "\u0301" * 200,
    "joined emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 5,
    "not a character": "\uffff\ufffe\U0010ffff",
    "byte order mark": "\ufeffabc",
    "line separators": "a\u2028b\u2029c\u0085d",
    "the end-of-text token": "a<|endoftext|>b",
    "markup": "<script>alert(1)</script>' OR 1=1; --",
    "templates": "{{7*7}} ${7*7} %s %n {0.__class__}",
}


@pytest.mark.parametrize("what", TEXTS)
def test_any_text_is_text(http: httpx.Client, what: str) -> None:
    text = TEXTS[what]
    normal = unicodedata.normalize("NFC", text)  # by the model's own tokenizer
    ids = http.post("/tokenize", json={"prompt": text}).json()["tokens"]
    if what != "the end-of-text token":
        assert http.post("/detokenize", json={"tokens": ids}).json()["prompt"] == normal
    for path in ("/generate", "/v1/completions"):
        answer = http.post(path, json={"prompt": text, "max_tokens": 2, "echo": True})
        if path == "/v1/completions":
            assert answer.json()["choices"][0]["text"].startswith(text)
        else:
            assert answer.status_code in (200, 400)


@pytest.mark.parametrize("token", [-1, 2**31, 2**63, 2**64, 10**30, 1.5, True, "1", None])
def test_token_ids_outside_the_vocabulary(http: httpx.Client, token: object) -> None:
    for path in ("/generate", "/v1/completions", "/detokenize"):
        if path == "/v1/completions" and isinstance(token, str):
            continue  # two kinds of lists: of ids, and of prompts
        answer = http.post(path, json=body_for(path, [token]))
        assert answer.status_code == 400, (path, answer.text)
