"""Six training steps behind one server with room for two: each answers as if it were alone."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

import pythia_bento
from pythia_bento.client import Client, Generation, Score, ScoreItem, Timings
from pythia_bento.errors import InvalidRequest, ModelNotFound, PythiaError
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from tests.e2e.serving import HTTP, ROOT, Server

STEPS = (0, 64, 256, 512, 1000, 3000)
MODELS = tuple(f"bundled@step{step}" for step in STEPS)
CALLERS, ROUNDS = 8, 8
TEXTS = ("Once upon a time", "The cat sat on", "Question: What color is", [5, 6, 7, 8])

Ask = Callable[[str, int], Any]


@pytest.fixture(scope="module")
def asks(shelf: Server) -> Iterator[dict[str, Ask]]:
    """Every way to ask, of a model and a number that decides the rest."""
    with Client(shelf.url) as http, Client(f"grpc://127.0.0.1:{shelf.grpc_port}") as over_grpc:
        yield {
            "http": lambda model, number: generated(http, model, number),
            "grpc": lambda model, number: generated(over_grpc, model, number),
            "completions": lambda model, number: completed(shelf, model, number),
            "http scores": lambda model, number: http.score(items(number), model=model),
            "grpc scores": lambda model, number: over_grpc.score(items(number), model=model),
        }


def test_the_python_of_the_page_on_checkpoints(shelf: Server, commands: Path) -> None:
    """It asks every step, and prints what the client returns."""
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    address = f"grpc://127.0.0.1:{shelf.grpc_port}"
    assert "grpc://localhost:3001" in code
    command = [commands / "python", "-c", code.replace("grpc://localhost:3001", address)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed = [line.split() for line in done.stdout.splitlines()]
    assert [int(step) for step, _ in printed] == sorted(
        STEPS, key=lambda step: (step != 3000, step)
    )
    with Client(shelf.url) as client:
        for step, logprob in printed:
            asked = [ScoreItem("The capital of France is", " Paris", model=f"bundled@step{step}")]
            [score] = client.score(asked)
            assert f"{score.logprob}" == logprob


def options(number: int) -> dict[str, Any]:
    greedy = number % 3 == 0
    return {
        "max_tokens": 6 + number % 7,
        "n": 1 if greedy else 2,
        "temperature": 0 if greedy else 0.9,
        "seed": number,
        "logprobs": 2,
        "prompt_logprobs": 1,
    }


def prompt(number: int) -> Any:
    return TEXTS[number % len(TEXTS)]


def items(number: int) -> list[ScoreItem]:
    return [ScoreItem(prompt(number), " there was a", logprobs=1), ScoreItem(prompt(number + 1))]


def generated(client: Any, model: str | None, number: int) -> Generation:
    """Without what depends on the moment."""
    answer: Generation = client.generate(prompt(number), model=model, **options(number))
    summary = replace(answer.summary, timings=Timings(0, 0, 0, 0), num_cached_tokens=0)
    return replace(answer, summary=summary)


def completed(server: Server, model: str, number: int) -> Any:
    """OpenAI's answer, in what it has in common with ``generated``."""
    body = {"prompt": prompt(number), "model": model, "return_token_ids": True, **options(number)}
    response = HTTP.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    answer = response.json()
    choices = [
        (choice["text"], choice["token_ids"], choice["logprobs"]["token_logprobs"])
        for choice in answer["choices"]
    ]
    return answer["model"], answer["system_fingerprint"], choices


def as_completed(answer: Generation) -> Any:
    choices = [
        (output.text, output.token_ids, [token.logprob for token in output.tokens])
        for output in answer.outputs
    ]
    return answer.summary.model, answer.summary.fingerprint, choices


@pytest.fixture(scope="module")
def alone() -> dict[tuple[str, str, int], Any]:
    """What each step answers where nothing else is loaded: by model, way and number."""
    found: dict[tuple[str, str, int], Any] = {}
    for model in MODELS:
        with pythia_bento.load(model, models="", device="cpu", progress=False) as lm:
            assert [state.model for state in lm.models()] == [model]
            for number in range(ROUNDS):
                answer = generated(lm, None, number)
                found |= {(model, way, number): answer for way in ("http", "grpc")}
                found[model, "completions", number] = as_completed(answer)
                scores = lm.score(items(number))
                found |= {(model, f"{way} scores", number): scores for way in ("http", "grpc")}
    return found


def test_each_step_answers_as_if_it_were_alone(
    shelf: Server, asks: dict[str, Ask], alone: dict[tuple[str, str, int], Any]
) -> None:
    """Tokens, log-probabilities and fingerprints, whoever asks for what beside."""
    asked = list(alone)
    random.Random(16).shuffle(asked)
    assert len(asked) == 240
    with ThreadPoolExecutor(CALLERS) as callers:
        answers = list(callers.map(lambda one: asks[one[1]](one[0], one[2]), asked))
    for one, answer in zip(asked, answers, strict=True):
        assert answer == alone[one], one
    prints = {alone[model, "http", 0].summary.fingerprint for model in MODELS}
    assert len(prints) == len({repr(alone[m, "http", 1].outputs) for m in MODELS}) == len(MODELS)


def test_one_request_scores_by_many(shelf: Server, alone: dict[tuple[str, str, int], Any]) -> None:
    asked = [replace(item, model=model) for model in MODELS for item in items(1)]
    unknown = ScoreItem("a", model="bundled@step65")
    for url in (shelf.url, f"grpc://127.0.0.1:{shelf.grpc_port}"):
        with Client(url) as client:
            *scores, refused = client.score([*asked, unknown])
        assert scores == [score for m in MODELS for score in alone[m, "http scores", 1]]
        assert all(isinstance(score, Score) for score in scores)
        assert isinstance(refused, ModelNotFound)


REFUSED: dict[str, tuple[type[PythiaError], str]] = {
    "bundled@step65": (ModelNotFound, "nearest are bundled@step0 and bundled@step64"),
    "pythia-160m@step3000": (InvalidRequest, "12 layers of 768, but this server computes"),
    "someone/tiny@step3": (
        ModelNotFound,
        "not in the store; `pythia-bento pull someone/tiny@step3`",
    ),
    "nonsense": (ModelNotFound, "'nonsense' is not served here"),
}


@pytest.mark.parametrize("model", REFUSED)
def test_models_that_are_not_served(shelf: Server, model: str) -> None:
    """By every call over both, with the same words."""
    kind, words = REFUSED[model]
    for url in (shelf.url, f"grpc://127.0.0.1:{shelf.grpc_port}"):
        with Client(url) as client:
            for ask in (
                lambda: client.generate("a", model=model),
                lambda: client.score([], model=model),
                lambda: client.tokenize("a", model=model),
                lambda: client.detokenize([5], model=model),
                lambda: client.info(model),
            ):
                with pytest.raises(kind, match=words) as caught:
                    ask()
                assert (type(caught.value), caught.value.param) == (kind, "model")
    body = {"prompt": "a", "model": model}
    refused = HTTP.post(f"{shelf.url}/v1/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (kind.status, "model")


def test_cards_and_states(shelf: Server) -> None:
    cards = HTTP.get(f"{shelf.url}/v1/models").json()["data"]
    assert [card["step"] for card in cards] == [3000, 0, 64, 256, 512, 1000]
    assert sum(card["state"] == "device" for card in cards) <= 2
    assert (cards[0]["state"], cards[0]["pinned"]) == ("device", True)
    assert cards[1]["tokens_seen"] == 0 and cards[2]["tokens_seen"] == 64 * 2_097_152
    assert len({card["weights"] for card in cards}) == len(cards)
    with Client(shelf.url) as http, Client(f"grpc://127.0.0.1:{shelf.grpc_port}") as over_grpc:
        assert http.models() == over_grpc.models()
        for model in ("bundled", *MODELS):
            assert http.info(model) == over_grpc.info(model)
            assert http.info(model).model == ("bundled@step3000" if model == "bundled" else model)
    with grpc.insecure_channel(f"127.0.0.1:{shelf.grpc_port}") as channel:
        found = PythiaStub(channel).Models(pb.ModelsRequest(pattern="bundled@step?????"))
        assert list(found.models) == []
        found = PythiaStub(channel).Models(pb.ModelsRequest(pattern="*@step3*"))
        assert [state.model for state in found.models] == ["bundled@step3000"]


def test_orders(shelf: Server, server: Server) -> None:
    body = {"model": "bundled@step0"}
    loaded = HTTP.post(f"{shelf.url}/v1/models/load", json=body, timeout=60).json()
    assert (loaded["state"], loaded["pinned"]) == ("device", False)
    last = HTTP.post(f"{shelf.url}/v1/models/load", json=body | {"pin": True})
    assert (last.status_code, last.json()["error"]["param"]) == (400, "pin")
    left = HTTP.post(f"{shelf.url}/v1/models/unload", json=body).json()
    assert (left["id"], left["state"], left["pinned"]) == ("bundled@step0", "disk", False)
    unknown = HTTP.post(f"{shelf.url}/v1/models/load", json={"model": "bundled@step1"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    for order in ("load", "unload"):
        refused = HTTP.post(f"{server.url}/v1/models/{order}", json=body)
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "permission_denied"


def test_without_settings_all_bundled_steps_answer(
    server: Server, alone: dict[tuple[str, str, int], Any]
) -> None:
    with Client(server.url) as client:
        for model in MODELS:
            assert generated(client, model, 2) == alone[model, "http", 2]
