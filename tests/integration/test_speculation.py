"""Drafts change no bit: alone, in company, after preemption, from the cache, whatever is asked."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from pythia_bento.checkpoints.checkpoint import find_checkpoint
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels import create
from tests.amounts import rest_long
from tests.constraints import CASES
from tests.integration.engine_parts import TOKENIZER, mixed_requests, random_model

pytestmark = pytest.mark.no_cover
Model = tuple[GPTNeoX, Tokenizer]
SIZES = {
    "one-by-one": {"max_batch_size": 1},
    "small-pieces": {"max_batch_size": 3, "max_tokens_per_step": 6},
    "small-pool": {"max_batch_size": 4, "num_blocks": 8},
}


@pytest.fixture(scope="module", params=rest_long(["bundled", "head_dim32"], ["head_dim80"]))
def model(request: pytest.FixtureRequest) -> Model:
    if request.param != "bundled":
        head_dim = int(request.param.removeprefix("head_dim"))
        return random_model("cpu", head_dim=head_dim, heads=2), TOKENIZER
    found = find_checkpoint("bundled")
    kernels = create("cpu", found.config, torch.device("cpu"), "w8a16")
    return GPTNeoX(found.source, kernels), Tokenizer.from_bytes(found.tokenizer, "")


def engine_of(model: Model, *, speculates: bool, num_blocks: int = 128, **sizes: int) -> Engine:
    config = EngineConfig(num_blocks, speculates=speculates, **sizes)
    return Engine(make_executor(model[0], config, model[1].num_tokens), model[1])


def told(answers: list[SequenceOutput]) -> list[tuple[SequenceOutput, str]]:
    """All that a client gets of them, but how much was cached, which depends on the others."""
    return [(replace(one, num_cached_tokens=0, error=None), str(one.error)) for one in answers]


def requests_of(count: int, seed: int) -> list[Request]:
    """Of every kind; most repeat themselves in the prompt, and some in the answer."""
    draw = random.Random(seed)
    repeating = [_of_few_tokens(draw, f"of {tokens}", tokens) for tokens in (1, 2)]
    return [_request(draw, one) for one in mixed_requests(count, seed)] + repeating


def _of_few_tokens(draw: random.Random, id: str, tokens: int) -> Request:
    few = draw.sample(range(2, 260), tokens)
    params = SamplingParams(
        max_tokens=40,
        temperature=10.0,
        ignore_eos=True,
        logprobs=1,
        logit_bias=tuple((token, 100.0) for token in few),
    )
    return Request(id, tuple(few * 9)[:9], params)


def _request(draw: random.Random, plain: Request) -> Request:
    params = replace(plain.params, top_k=draw.choice([0, 1, 2]), prompt_logprobs=None)
    if draw.random() < 0.6:  # of few tokens
        few = tuple((token, 100.0) for token in draw.sample(range(2, 260), draw.choice([1, 2, 3])))
        params = replace(params, logit_bias=few, temperature=draw.choice([0.0, 3.0, 10.0]))
    if draw.random() < 0.2:
        constraint = CASES[draw.choice(sorted(CASES))].constraint
        params = replace(params, constraint=constraint, max_tokens=max(params.max_tokens, 1))
    prompt = (plain.prompt[-20:] * 5)[: draw.randint(1, 90)]
    return Request(plain.request_id, prompt, params, plain.n)


# The first is short for every model, the rest is for who has time.
CASE = rest_long(
    [("one-by-one", 6, 0), ("small-pieces", 9, 1), ("small-pool", 9, 2)],
    [(name, 40, seed) for name in SIZES for seed in (4, 5)],
)


@pytest.mark.parametrize("case", CASE, ids=lambda case: f"{case[0]}-{case[2]}")
def test_answers_are_those_without(model: Model, case: tuple[str, int, int]) -> None:
    name, count, seed = case
    asked = requests_of(count, seed)
    plain = engine_of(model, speculates=False)
    wanted = {one.request_id: told(plain.generate([one])[0]) for one in asked}
    engine = engine_of(model, speculates=True, **SIZES[name])
    for again in range(2):  # the second time with a warm prefix cache
        order = random.Random(again).sample(asked, len(asked))
        for one, answers in zip(order, engine.generate(order), strict=True):
            assert told(answers) == wanted[one.request_id]
        engine.check()
        assert engine.stats().blocks_used == 0
    stats = engine.stats()
    assert stats.prefix_hits > 0
    assert stats.draft_tokens > stats.accepted_tokens > 0
    assert name != "small-pool" or stats.preemptions > 0


@pytest.mark.parametrize("seed", rest_long([0], range(1, 6)))
def test_arriving_and_leaving_does_not_matter(model: Model, seed: int) -> None:
    """Requests come one a few steps; some are cancelled on the way."""
    asked, rng = requests_of(24, seed), random.Random(seed)
    plain = engine_of(model, speculates=False)
    engine = engine_of(model, speculates=True, num_blocks=24, max_batch_size=4)
    queue, left, answers = list(asked), set[str](), dict[tuple[str, int], SequenceOutput]()
    while queue or engine.has_work:
        if queue and rng.random() < 0.4:
            engine.add_request(queue.pop())
        if rng.random() < 0.05 and engine.abort(victim := str(rng.randrange(24))):
            left.add(victim)
        for delta in engine.step():
            key = delta.request_id, delta.index
            if key in answers:
                answers[key].extend(delta)
            else:
                answers[key] = delta
        engine.check()
    assert engine.stats().blocks_used == 0
    assert engine.stats().accepted_tokens > 0
    for one in asked:
        if one.request_id not in left:
            found = [answers[one.request_id, index] for index in range(one.n)]
            assert told(found) == told(plain.generate([one])[0])


def test_text_that_repeats_takes_fewer_passes(model: Model) -> None:
    prompt = tuple(range(50, 60)) * 6
    params = SamplingParams(
        max_tokens=60, temperature=0.0, ignore_eos=True, logprobs=2, logit_bias=((55, 60.0),)
    )
    asked, engine = Request("r", prompt, params), engine_of(model, speculates=True)
    assert engine.generate([asked]) == engine_of(model, speculates=False).generate([asked])
    stats = engine.stats()
    assert stats.generation_tokens == 60
    assert stats.steps < 20
