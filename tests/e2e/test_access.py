"""A server that asks for API keys, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.serving import HTTP, ROOT, Server
from tests.fuzz.http import KEY, ORIGIN
from tests.later import openai

PROMPT = "Once upon a time"
CALLS = {
    "/v1/completions": {"prompt": PROMPT, "max_tokens": 2},
    "/generate": {"prompt": PROMPT, "max_tokens": 2},
    "/score": {"items": [{"prompt": PROMPT}]},
    "/tokenize": {"prompt": PROMPT},
    "/detokenize": {"tokens": [5]},
}
OPEN = ("/", "/livez", "/readyz", "/healthz", "/metrics", "/docs.json", "/playground")


@pytest.mark.parametrize("path", CALLS)
def test_calls_need_the_key(guarded: Server, path: str) -> None:
    for key, status in (("", 401), ("Bearer wrong", 401), (f"Bearer {KEY}", 200)):
        headers = {"Authorization": key}
        response = HTTP.post(guarded.url + path, json=CALLS[path], headers=headers)
        assert response.status_code == status, response.text
    assert KEY not in guarded.log.read_text()


@pytest.mark.parametrize("path", [*OPEN, "/schema.json", "/playground/tokens.js"])
def test_probes_and_pages_do_not(guarded: Server, path: str) -> None:
    assert HTTP.get(guarded.url + path).status_code == 200


@pytest.mark.parametrize("path", ["/docs.json", "/static_content/swagger-ui-bundle.js"])
def test_what_is_open_and_large_is_sent_packed(guarded: Server, path: str) -> None:
    plain = HTTP.get(guarded.url + path, headers={"Accept-Encoding": "identity"})
    packed = HTTP.get(guarded.url + path)
    assert packed.content == plain.content and packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content) / 3
    if tag := packed.headers.get("etag"):
        again = HTTP.get(guarded.url + path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/v1/models", "/tokenizer_info", "/nowhere", "/static_content"])
def test_the_rest_does(guarded: Server, path: str) -> None:
    assert HTTP.get(guarded.url + path).status_code == 401


def test_the_openai_client_brings_it(guarded: Server) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=KEY) as client:
        answer = client.completions.create(model="bundled", prompt=PROMPT, max_tokens=3)
        assert answer.usage and answer.usage.completion_tokens == 3
    with (
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="not known"),
    ):
        client.models.list()


@pytest.mark.parametrize("origin", [ORIGIN, "https://other.example", "null"])
def test_pages_of_one_origin_may_ask(guarded: Server, origin: str) -> None:
    url, is_known = f"{guarded.url}/v1/completions", origin == ORIGIN
    asks = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    preflight = HTTP.options(url, headers=asks)  # which has no key
    assert preflight.status_code == (200 if is_known else 400)
    body = {"prompt": PROMPT, "max_tokens": 2}
    for key, status in ((KEY, 200), ("wrong", 401)):
        headers = {"Origin": origin, "Authorization": f"Bearer {key}"}
        answer = HTTP.post(url, json=body, headers=headers)
        assert answer.status_code == status
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        for each in (answer, preflight):
            assert each.headers.get("access-control-allow-origin") == (origin if is_known else None)


def test_pages_of_nobody_may_ask_by_default(server: Server) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    preflight = HTTP.options(f"{server.url}/v1/completions", headers=headers)
    answer = HTTP.post(f"{server.url}/v1/completions", json=CALLS["/v1/completions"])
    assert (preflight.status_code, answer.status_code) == (405, 200)
    for each in (preflight, answer):
        assert not [name for name in each.headers if name.startswith("access-control")]


def test_the_openai_client_chats_where_there_is_a_template(guarded: Server) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=KEY) as client:
        said = "What color is the banana?"
        options: Any = {"model": "bundled", "max_tokens": 12, "temperature": 0}
        answer = client.chat.completions.create(
            messages=[{"role": "user", "content": said}], **options
        )
        prompt = f"User: {said}\nAssistant:"
        same = client.completions.create(prompt=prompt, **options)
        assert answer.choices[0].message.content == same.choices[0].text
        assert answer.usage and same.usage
        assert answer.usage.prompt_tokens == same.usage.prompt_tokens
    refused = HTTP.post(f"{guarded.url}/v1/chat/completions", json={"messages": []})
    assert refused.status_code == 401


def test_a_key_alone_cannot_ask_for_too_much(guarded: Server) -> None:
    body = {"prompt": [PROMPT] * 8, "n": 3}
    headers = {"Authorization": f"Bearer {KEY}"}
    response = HTTP.post(f"{guarded.url}/v1/completions", json=body, headers=headers)
    assert response.status_code == 400
    assert "24 sequences, but the limit is 16" in response.json()["error"]["message"]


def test_the_documentation_of_keys_is_what_the_command_prints() -> None:
    text = (ROOT / "docs/access.md").read_text()
    assert "pythia-bento key alice" in text and "\nalice sha256:" in text
