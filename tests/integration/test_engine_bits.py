"""Same request, same bits: alone, in company, in pieces, from the cache, after preemption.

Answers are compared with ``==`` on all fields, so log-probabilities must agree to the last bit.
"""

from __future__ import annotations

import random
from functools import cache

import pytest

from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.model.gpt_neox import GPTNeoX
from tests.amounts import rest_long
from tests.integration.engine_parts import (
    alone,
    best_with_token,
    engine_for,
    mixed_requests,
    random_model,
    without_cache_hits,
)

REQUESTS = mixed_requests(64)
# What others run once is run many times here, and coverage would make it half as fast.
pytestmark = pytest.mark.no_cover


@pytest.fixture(
    scope="module", params=[(32, 4), (80, 2), (256, 1)], ids=lambda p: f"head_dim{p[0]}"
)
def model(request) -> GPTNeoX:
    head_dim, heads = request.param
    return random_model("cpu", head_dim=head_dim, heads=heads)


@pytest.fixture(scope="module")
def wanted(model):
    """What a request gets alone, of those that are asked for."""
    return cache(lambda request: without_cache_hits(alone(model, request)))


SIZES = {
    "small-pieces": {"max_batch_size": 5, "max_tokens_per_step": 5},
    "small-pool": {"num_blocks": 13},
    "large": {},
    "odd-pieces": {"max_batch_size": 16, "max_tokens_per_step": 23},
}


# Five tokens a step are many steps, and 13 blocks are too few for a quarter of the requests.
FEW = [("small-pieces", 12), ("small-pool", 24)]
REST = [(name, len(REQUESTS)) for name in SIZES]


@pytest.mark.parametrize("case", rest_long(FEW, REST), ids=lambda c: f"{c[0]}-{c[1]}")
def test_company_does_not_matter(model, wanted, case):
    name, count = case
    sizes = SIZES[name]
    engine = engine_for(model, **sizes)
    for seed in range(2):  # the second time with a warm prefix cache
        requests = random.Random(seed).sample(REQUESTS[:count], count)
        for request, answers in zip(requests, engine.generate(requests), strict=True):
            assert without_cache_hits(answers) == wanted(request)
        engine.check()
        assert engine.stats().blocks_used == 0
    assert engine.stats().prefix_hits > 0
    if "num_blocks" in sizes:
        assert engine.stats().preemptions > 0


def test_arriving_and_leaving_does_not_matter(model, wanted):
    """Requests come one a step; every third is cancelled after some steps."""
    engine, rng = engine_for(model, max_tokens_per_step=64), random.Random(7)
    queue, cancelled, answers = rng.sample(REQUESTS, len(REQUESTS)), set(), {}
    while queue or engine.has_work:
        if queue:
            engine.add_request(queue.pop())
        if rng.random() < 0.3:
            victim = str(rng.randrange(len(REQUESTS)))
            if engine.abort(victim):
                cancelled.add(victim)
        for delta in engine.step():
            key = (delta.request_id, delta.index)
            if key in answers:
                answers[key].extend(delta)
            else:
                answers[key] = delta
        engine.check()
    assert 0 < len(cancelled) < 40
    assert engine.stats().blocks_used == 0
    for request in REQUESTS:
        if request.request_id not in cancelled:
            own = [answers[request.request_id, index] for index in range(request.n)]
            assert without_cache_hits(own) == wanted(request)


@pytest.mark.parametrize("size", [1, 3, 16, 17, 100])
def test_the_cut_of_the_prompt_does_not_matter(model, size):
    prompt = tuple(2 + index * 7 % 260 for index in range(150))
    request = Request("r", prompt, SamplingParams(max_tokens=8, logprobs=3, prompt_logprobs=2))
    engine = engine_for(model, max_batch_size=1, max_tokens_per_step=size)
    assert engine.generate([request])[0] == alone(model, request)


def test_a_cached_prefix_does_not_matter(model):
    prompt = tuple(2 + index * 7 % 260 for index in range(64))
    request = Request("r", prompt, SamplingParams(max_tokens=40, logprobs=3, ignore_eos=True))
    engine = engine_for(model)
    first, again = engine.generate([request])[0], engine.generate([request])[0]
    assert (first[0].num_cached_tokens, again[0].num_cached_tokens) == (0, 48)
    longer = Request("r", prompt + tuple(first[0].token_ids), request.params)
    (cached,) = engine.generate([longer])[0]
    assert cached.num_cached_tokens > 64, "generated tokens are cached too"
    assert without_cache_hits(again) == first == alone(model, request)
    assert without_cache_hits([cached]) == alone(model, longer)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_scoring_an_answer_gives_the_logprobs_it_was_generated_with(model, temperature):
    prompt = tuple(2 + index * 7 % 260 for index in range(30))
    params = SamplingParams(
        max_tokens=60, temperature=temperature, logprobs=4, seed=5, ignore_eos=True
    )
    (answer,) = alone(model, Request("r", prompt, params))
    whole = Request(
        "s", prompt + tuple(answer.token_ids), SamplingParams(max_tokens=0, prompt_logprobs=4)
    )
    engine = engine_for(model, max_batch_size=1, max_tokens_per_step=33)
    (score,) = engine.generate([whole])[0]
    assert list(score.prompt_logprobs)[len(prompt) - 1 :] == answer.logprobs


def test_the_best_token_of_a_greedy_answer_has_the_same_float_twice(model):
    """lm-evaluation-harness judges greediness by equality of these two numbers."""
    params = SamplingParams(max_tokens=30, temperature=0.0, logprobs=20)
    for logprob in alone(model, Request("r", (5, 6, 7), params))[0].logprobs:
        assert best_with_token(logprob) == (logprob.token_id, logprob.logprob)
