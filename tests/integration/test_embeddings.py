"""Embeddings over HTTP: the last hidden state, as OpenAI's clients ask for it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from pythia_bento.protocol.activations import read
from pythia_bento.runtime.runner import PythiaRunner
from tests.integration.inside_server import bundled, over_http

TEXTS = ["Once upon a time", "the end", "A longer text, which tells of more than one thing."]
WIDTH = 128


@pytest.fixture(scope="module")
def runner() -> Iterator[PythiaRunner]:
    with bundled() as runner:
        yield runner


@pytest.fixture
async def http(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    async with over_http(runner) as client:
        yield client


async def embedded(http: httpx.AsyncClient, input: Any, **fields: Any) -> list[np.ndarray]:
    """Raw vectors, unless ``fields`` say otherwise."""
    body = {"input": input, "normalize": False} | fields
    answer = await http.post("/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return [np.array(one["embedding"], np.float32) for one in data]


async def states(http: httpx.AsyncClient, text: str) -> np.ndarray:
    """All last hidden states of it."""
    body = {"prompts": [text], "capture": [{"site": "ln_final.hook_normalized"}]}
    answer = await http.post("/activations", json=body)
    return read(bytearray(answer.content))[0]["ln_final.hook_normalized"]


async def test_they_are_the_last_hidden_states(http: httpx.AsyncClient) -> None:
    last = await embedded(http, TEXTS, pooling="last")
    mean = await embedded(http, TEXTS)
    for text, one, other in zip(TEXTS, last, mean, strict=True):
        rows = await states(http, text)
        assert np.array_equal(one, rows[-1]) and one.shape == (WIDTH,)
        np.testing.assert_allclose(other, rows.mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "last"])
async def test_a_batch_changes_no_bit(http: httpx.AsyncClient, pooling: str) -> None:
    together = await embedded(http, TEXTS * 5, pooling=pooling)
    for index, text in enumerate(TEXTS * 2):
        [alone] = await embedded(http, text, pooling=pooling)
        assert np.array_equal(together[index], alone)


async def test_lengths_are_one_unless_raw_states_are_asked_for(http: httpx.AsyncClient) -> None:
    raw, normal = await embedded(http, TEXTS), await embedded(http, TEXTS, normalize=True)
    for one, other in zip(raw, normal, strict=True):
        wide = one.astype(np.float64)
        assert np.array_equal(other, (wide / np.sqrt(wide @ wide)).astype(np.float32))
        assert abs(np.linalg.norm(other.astype(np.float64)) - 1) < 1e-6
    assert np.array_equal((await embedded(http, TEXTS, normalize=None))[0], normal[0])


async def test_base64_has_the_same_bits(http: httpx.AsyncClient) -> None:
    body = {"input": TEXTS, "encoding_format": "base64"}
    answer = (await http.post("/embeddings", json=body)).json()
    expected = await embedded(http, TEXTS, normalize=True)
    for one, vector in zip(answer["data"], expected, strict=True):
        assert base64.b64decode(one["embedding"]) == vector.astype("<f4").tobytes()


async def test_the_answer_in_openais_shape(http: httpx.AsyncClient, runner: PythiaRunner) -> None:
    ids = runner.tokenizer.encode(TEXTS[0])
    for input in (TEXTS[0], [TEXTS[0]], ids, [ids]):
        fields = {"dimensions": WIDTH, "user": "me", "encoding_format": "float", "pooling": None}
        answer = await http.post("/embeddings", json={"input": input, "model": "bundled"} | fields)
        told = answer.json()
        [one] = told.pop("data")
        assert one["object"] == "embedding" and len(one["embedding"]) == WIDTH
        assert told == {
            **{"object": "list", "model": "bundled@step3000", "pooling": "mean"},
            "system_fingerprint": runner.info.fingerprint,
            "usage": {"prompt_tokens": len(ids), "total_tokens": len(ids)},
        }


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"dimensions": 64}, 400, "dimensions", "dimensions must be 128, the model's width, not 64"),
    ({"input": None}, 400, "input", "input is required"),
    ({"input": ""}, 400, "input", "input is empty"),
    ({"input": ["a", ""]}, 400, "input[1]", "input[1] is empty"),
    ({"input": [[5], [99999]]}, 400, "input[1]", "99999"),
    ({"input": [5] * 513}, 400, "input", "input has 513 tokens"),
    ({"input": []}, 400, "input", "input must be a string, a list of strings"),
    ({"input": ["a"] * 2049}, 400, "input", "input has 2049 entries, but the limit is 2048"),
    ({"pooling": "max"}, 400, "pooling", "pooling must be 'mean' or 'last'"),
    ({"encoding_format": "hex"}, 400, "encoding_format", "must be 'float' or 'base64'"),
    ({"normalize": 1}, 400, "normalize", "normalize must be"),
    ({"priority": 21}, 400, "priority", "priority must be"),
    ({"temperature": 1}, 400, "temperature", "temperature is not a field"),
    ({"model": "gpt"}, 404, "model", "'gpt' is not served"),
]


@pytest.mark.parametrize(("fields", "status", "param", "words"), REFUSED)
async def test_bad_input(
    http: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str, words: str
) -> None:
    answer = await http.post("/embeddings", json={"input": "a"} | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), error
    assert words in error["message"]


async def test_more_bytes_than_a_request_may_take() -> None:
    with bundled(max_capture_bytes=1024) as runner:
        async with over_http(runner) as http:
            assert len(await embedded(http, TEXTS[:2])) == 2
            answer = await http.post("/embeddings", json={"input": TEXTS})
    assert answer.status_code == 413
    words = "input has 3 texts, whose embeddings take 1,536 bytes, but the limit is 1,024"
    assert answer.json()["error"]["message"] == words
