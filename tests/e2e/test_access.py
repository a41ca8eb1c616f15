"""A server that asks for API keys, over HTTP."""

from __future__ import annotations

import openai
import pytest

from tests.e2e.serving import HTTP, ROOT, Server
from tests.fuzz.http import KEY

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


def test_a_key_alone_cannot_ask_for_too_much(guarded: Server) -> None:
    body = {"prompt": [PROMPT] * 8, "n": 3}
    headers = {"Authorization": f"Bearer {KEY}"}
    response = HTTP.post(f"{guarded.url}/v1/completions", json=body, headers=headers)
    assert response.status_code == 400
    assert "24 sequences, but the limit is 16" in response.json()["error"]["message"]


def test_the_documentation_of_keys_is_what_the_command_prints() -> None:
    text = (ROOT / "docs/access.md").read_text()
    assert "pythia-bento key alice" in text and "\nalice sha256:" in text
