"""The tokenizer over HTTP, asked as lm-evaluation-harness and vLLM's clients ask."""

from __future__ import annotations

import httpx
import pytest

from pythia_bento.runtime.runner import PythiaRunner
from tests.unit.conftest import MAX_BODY, app_of
from tests.unit.runtime.toy_runner import INFO

TEXTS = ["the end", "", "thé  all\n", "<|endoftext|>in the", "a" * 5000]


@pytest.fixture
async def root(app):
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        yield client


@pytest.mark.parametrize("text", TEXTS)
async def test_there_and_back(root, runner: PythiaRunner, text: str) -> None:
    answer = await root.post("/tokenize", json={"prompt": text, "add_special_tokens": False})
    ids = runner.tokenizer.encode(text)
    assert answer.json() == {
        "count": len(ids),
        "max_model_len": 64,
        "tokens": ids,
        "token_strs": None,
    }
    answer = await root.post("/detokenize", json={"tokens": ids})
    assert answer.json() == {"prompt": text}


async def test_vllms_shapes(root) -> None:
    body = {"model": INFO.id, "prompt": "in the", "return_token_strs": True}
    answer = (await root.post("/tokenize", json=body)).json()
    assert answer["token_strs"] == ["in", "Ġthe"]
    again = await root.post("/tokenize", json=body | {"add_special_tokens": True})
    assert again.json() == answer
    answer = await root.post("/detokenize", json={"model": "toy", "tokens": answer["tokens"]})
    assert answer.json() == {"prompt": "in the"}


async def test_info_names_the_end_of_text(root, runner: PythiaRunner) -> None:
    info = (await root.get("/tokenizer_info")).json()
    assert runner.tokenizer.encode(info["eos_token"]) == [runner.tokenizer.eos_id]
    assert info["bos_token"] == info["eos_token"]
    assert (info["model_max_length"], info["vocab_size"]) == (64, 268)
    assert (info["chat_template"], info["add_bos_token"]) == (None, False)


async def test_half_a_character_is_replaced(root, runner: PythiaRunner) -> None:
    ids = runner.tokenizer.encode("€")
    assert len(ids) == 3
    answer = await root.post("/detokenize", json={"tokens": ids[:2]})
    assert answer.json() == {"prompt": "\ufffd"}


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "words"),
    [
        ("/tokenize", b"{", 400, None, "not valid JSON"),
        ("/tokenize", {}, 400, "prompt", "prompt is required"),
        ("/tokenize", {"prompt": 5}, 400, "prompt", "must be a valid string"),
        ("/tokenize", {"prompt": ["a"]}, 400, "prompt", "must be a valid string"),
        ("/tokenize", {"prompt": "a", "messages": []}, 400, "messages", "not a field"),
        ("/tokenize", {"prompt": "a", "model": "gpt"}, 404, "model", "'gpt' is not served"),
        ("/tokenize", {"prompt": "a" * MAX_BODY}, 413, None, str(MAX_BODY)),
        ("/tokenize", b'{"prompt": "\\ud800"}', 400, None, "lone surrogate"),
        ("/detokenize", {"tokens": "a"}, 400, "tokens", "tokens must be a list of token ids"),
        ("/detokenize", {"tokens": [1, True]}, 400, "tokens", "tokens must be a list"),
        ("/detokenize", {"tokens": [5, 268]}, 400, "tokens", "268, but token ids are integers"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens", "-1, but token ids are integers from 0"),
        ("/detokenize", {"prompt": "a"}, 400, "tokens", "tokens is required"),
    ],
)
async def test_bad_input(root, path, body, status, param, words) -> None:
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = await root.post(path, **content)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert words in error["message"]


async def test_before_the_model_is_loaded_and_with_other_methods(root) -> None:
    transport = httpx.ASGITransport(app_of(None))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as early:
        for answer in (
            await early.get("/tokenizer_info"),
            await early.post("/tokenize", json={"prompt": "a"}),
        ):
            assert answer.status_code == 503
    assert (await root.get("/tokenize")).status_code == 405
    assert (await root.post("/tokenizer_info")).status_code == 405
