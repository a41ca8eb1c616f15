"""Keys and what callers send are in no log, page or message."""

from __future__ import annotations

from pathlib import Path

import pytest

from pythia_bento.client import Client
from pythia_bento.errors import PythiaError
from tests.amounts import rest_long
from tests.e2e.serving import HTTP, Server, serve
from tests.fuzz.http import KEY

WRONG = "k9-wrong-0123456789abcdef"
PROMPT = "k9-prompt of a caller"


def ask_in_every_way(server: Server) -> list[str]:
    """With the right key and the wrong one, where keys belong and where they do not."""
    answers = []
    for key in (KEY, WRONG):
        headers = {"authorization": f"Bearer {key}"}
        for body in (
            {"prompt": PROMPT, "max_tokens": 1},
            {"prompt": PROMPT, "top_p": PROMPT},
            PROMPT,
        ):
            for path in ("/generate", "/v1/completions", "/score", f"/generate?key={key}"):
                answers.append(HTTP.post(server.url + path, json=body, headers=headers).text)
        for misplaced in (f"Basic {key}", key, f"Bearer{key}", f"Bearer {key} {key}"):
            headers = {"authorization": misplaced, "x-api-key": key, "cookie": f"key={key}"}
            answers.append(HTTP.get(f"{server.url}/v1/models", headers=headers).text)
        with Client(f"grpc://127.0.0.1:{server.grpc_port}", api_key=key) as client:
            try:
                client.generate(PROMPT, max_tokens=1)
            except PythiaError as error:
                answers.append(error.message)
    return answers


def test_no_key_and_no_prompt_is_logged_or_answered(guarded: Server) -> None:
    answers = ask_in_every_way(guarded)
    log = guarded.log.read_text()
    assert "caller=fuzz" in log  # control: these calls are in it
    pages = [HTTP.get(guarded.url + path).text for path in ("/metrics", "/docs.json", "/")]
    for text in (log, *pages, *answers):
        for secret in (KEY, WRONG):
            assert secret not in text
    for text in (log, *pages):
        assert "k9-prompt" not in text


@pytest.mark.parametrize("entries", rest_long(["alice {} nonsense"], ["a b c {}", "sha256:{}"]))
def test_a_start_that_fails_by_its_keys_does_not_print_them(home: Path, entries: str) -> None:
    with pytest.raises(AssertionError) as failed, serve(home, api_keys=entries.format(KEY)):
        pass
    assert "PYTHIA_API_KEYS" in str(failed.value)  # the log, which the assertion carries
    assert KEY not in str(failed.value)
