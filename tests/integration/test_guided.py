"""Texts of a given form: they have it, and their bits are those of the request alone."""

from __future__ import annotations

import json
import random

import pytest

import pythia_bento
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.errors import InvalidRequest
from pythia_bento.model.gpt_neox import GPTNeoX
from tests.constraints import CASES
from tests.integration.engine_parts import (
    alone,
    engine_for,
    mixed_requests,
    random_model,
    without_cache_hits,
)

PLAIN = mixed_requests(16, seed=4)


def guided_requests() -> list[Request]:
    """Every kind with every way to choose; several sequences of some."""
    draw, requests = random.Random(5), []
    for name, case in CASES.items():
        for index, temperature in enumerate((0.0, 1.0, 2.0)):
            params = SamplingParams(
                max_tokens=60,
                temperature=temperature,
                top_p=draw.choice([1.0, 0.9]),
                top_k=draw.choice([0, 3]),
                frequency_penalty=draw.choice([0.0, 0.5]),
                seed=draw.randrange(2**64),
                logprobs=draw.choice([None, 2]),
                logit_bias=draw.choice([(), ((5, 2.5),)]),
                min_tokens=draw.choice([0, 3]),
                constraint=case.constraint,
            )
            prompt = tuple(draw.randrange(2, 260) for _ in range(draw.randint(1, 50)))
            requests.append(Request(f"{name} {index}", prompt, params, draw.choice([1, 3])))
    return requests


GUIDED = guided_requests()


@pytest.fixture(scope="module")
def model() -> GPTNeoX:
    return random_model("cpu")


@pytest.fixture(scope="module")
def wanted(model: GPTNeoX) -> dict:
    return {r.request_id: without_cache_hits(alone(model, r)) for r in [*GUIDED, *PLAIN]}


def test_the_texts_of_a_random_model_have_their_form(wanted: dict) -> None:
    complete = 0
    for request in GUIDED:
        name = request.request_id.rpartition(" ")[0]
        for answer in wanted[request.request_id]:
            assert answer.finish_reason in ("stop", "length") and answer.error is None
            if answer.finish_reason == "stop":
                assert CASES[name].conforms(answer.text), (name, answer.text)
                complete += 1
    assert complete > len(GUIDED) / 2


@pytest.mark.parametrize(
    "sizes",
    [
        {"max_batch_size": 9, "max_tokens_per_step": 11},
        {"num_blocks": 13},
        {},
    ],
    ids=str,
)
def test_neither_kind_depends_on_the_other(model: GPTNeoX, wanted: dict, sizes: dict) -> None:
    engine = engine_for(model, **sizes)
    requests = random.Random(1).sample([*GUIDED, *PLAIN], len(GUIDED) + len(PLAIN))
    for request, answers in zip(requests, engine.generate(requests), strict=True):
        assert without_cache_hits(answers) == wanted[request.request_id], request.request_id
    engine.check()
    if "num_blocks" in sizes:
        assert engine.stats().preemptions > 0


def test_log_probabilities_are_the_models_own(model: GPTNeoX) -> None:
    """What a mask leaves out has its probability all the same."""
    params = SamplingParams(
        max_tokens=9, logprobs=3, temperature=0, constraint=CASES["regex"].constraint
    )
    prompt = (5, 6, 7)
    [answer] = alone(model, Request("r", prompt, params))
    scored = SamplingParams(max_tokens=0, prompt_logprobs=3)
    whole = Request("s", prompt + tuple(answer.token_ids), scored)
    [score] = alone(model, whole)
    assert answer.logprobs == list(score.prompt_logprobs)[len(prompt) - 1 :]
    assert any(token.token_id not in dict(token.top) for token in answer.logprobs)


def test_what_meets_a_limit_later_ends_alone(model: GPTNeoX, monkeypatch) -> None:
    from pythia_bento.engine import grammars

    monkeypatch.setitem(grammars._LIMITS, "max_lexer_states", 300)
    constraint = grammars.Constraint("guided_regex", "regex", "[a-z ]*b[a-z ]{299}")
    bad = Request("bad", (5, 6), SamplingParams(max_tokens=200, seed=1, constraint=constraint), n=2)
    good = [request for request in PLAIN if request.params.max_tokens > 6][:3]
    engine = engine_for(model)
    answers = engine.generate([bad, *good])
    for answer in answers[0]:
        assert answer.finish_reason == "error" and isinstance(answer.error, InvalidRequest)
        assert "too many states" in answer.error.message
    for request, found in zip(good, answers[1:], strict=True):
        assert without_cache_hits(found) == without_cache_hits(alone(model, request))
    engine.check()
    assert engine.stats().blocks_used == 0


@pytest.fixture(scope="module")
def lm():
    with pythia_bento.load("bundled", device="cpu", progress=False) as lm:
        yield lm


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_the_bundled_model_keeps_to_a_form(lm, name: str, temperature: float) -> None:
    options = {"max_tokens": 200, "temperature": temperature, "seed": 3, "n": 3}
    asked = {"structured_outputs": CASES[name].value, **options}
    answer = lm.generate("Once upon a time", **asked)
    for output in answer.outputs:
        assert output.finish_reason == "stop" and CASES[name].conforms(output.text), output.text
    parts = list(lm.stream("Once upon a time", **asked))
    for index, output in enumerate(answer.outputs):
        deltas = [delta for part in parts for delta in part.deltas if delta.index == index]
        assert "".join(delta.text for delta in deltas) == output.text
    assert lm.generate("Once upon a time", **asked).outputs == answer.outputs


def test_a_text_that_is_cut_short_begins_as_it_must(lm) -> None:
    options = {"max_tokens": 5, "structured_outputs": {"json": {"type": "object"}}}
    [output] = lm.generate("Once upon a time", **options).outputs
    assert output.finish_reason == "length" and output.text.startswith("{")
    [output] = lm.generate("A", **options | {"max_tokens": 200, "temperature": 0}).outputs
    assert output.text.startswith("{")
    if output.finish_reason == "stop":
        assert isinstance(json.loads(output.text), dict)


def test_what_cannot_be_followed_is_refused(lm) -> None:
    with pytest.raises(InvalidRequest, match=r"^structured_outputs cannot be followed: .*regex"):
        lm.generate("A", structured_outputs={"regex": "("})
    assert lm.generate("A", max_tokens=2, seed=1).outputs
