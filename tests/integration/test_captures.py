"""What is seen of a model's inside has the same bits whatever is about, and changes none."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from pythia_bento.engine.capture import Capture, Lens, Tap
from pythia_bento.engine.interventions import Intervention
from pythia_bento.engine.outputs import SequenceOutput, num_inputs
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.errors import CaptureOverflow
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.sites import RESID_POST, RESID_PRE, SITES, Place
from tests.amounts import rest_long
from tests.integration.captures import (
    ALL,
    Capturing,
    Rows,
    bits,
    capturing,
    changing,
    everything,
    same,
)
from tests.integration.engine_parts import (
    engine_for,
    mixed_requests,
    random_model,
    without_cache_hits,
)

REQUESTS = [replace(request, n=1) for request in mixed_requests(32)]
SHOWN = {"3", "8", "17", "29"}  # the requests that capture
RESIDUALS = [site for site in SITES if site.kind == "hidden"]


@pytest.fixture(
    scope="module", params=rest_long([(32, 4)], [(256, 1)]), ids=lambda p: f"head_dim{p[0]}"
)
def model(request) -> GPTNeoX:
    head_dim, heads = request.param
    return random_model("cpu", head_dim=head_dim, heads=heads)


@pytest.fixture(scope="module")
def requests(model) -> list[Request]:
    shown = everything(model.config)
    return [capturing(r, shown) if r.request_id in SHOWN else r for r in REQUESTS]


def engine(model: GPTNeoX, **sizes: int) -> Capturing:
    return Capturing(engine_for(model, **sizes))


def alone(model: GPTNeoX, request: Request) -> tuple[list[SequenceOutput], Rows]:
    [(answers, rows)] = engine(model, max_tokens_per_step=256).generate([request])
    return without_cache_hits(answers), rows


@pytest.fixture(scope="module")
def wanted(model, requests):
    return {request.request_id: alone(model, request) for request in requests}


def test_seeing_changes_no_answer(model, requests, wanted):
    for request in requests:
        if request.request_id in SHOWN:
            assert alone(model, capturing(request, None))[0] == wanted[request.request_id][0]


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"max_batch_size": 11, "max_tokens_per_step": 11},
    ],
    ids=["together", "pieces-of-11"],
)
def test_company_pieces_and_the_cache_do_not_matter(model, requests, wanted, sizes):
    running = engine(model, **sizes)
    for seed in range(2):  # the second time with a warm prefix cache
        mixed = random.Random(seed).sample(requests, len(requests))
        for request, (answers, rows) in zip(mixed, running.generate(mixed), strict=True):
            expected_answers, expected_rows = wanted[request.request_id]
            assert without_cache_hits(answers) == expected_answers
            assert same(rows, expected_rows)
        running.engine.check()
        assert running.engine.stats().blocks_used == 0
    assert running.engine.stats().prefix_hits > 0


PROMPT = tuple(2 + index * 7 % 260 for index in range(100))


def test_the_cache_is_used_up_to_the_first_position_that_is_asked_for(model):
    plain = Request("p", PROMPT, SamplingParams(max_tokens=3, ignore_eos=True))
    last = Capture((Tap(Place(RESID_POST, 1), (99,)),))
    early = Capture((Tap(Place(RESID_POST, 1), (40, 99)),))
    running = engine(model)
    running.generate([plain])
    for capture, hits in ((last, 96), (early, 32)):
        expected = alone(model, capturing(plain, capture))
        [(answers, rows)] = running.generate([capturing(plain, capture)])
        assert answers[0].num_cached_tokens == hits
        assert without_cache_hits(answers) == expected[0]
        assert same(rows, expected[1])


def test_rows_of_generated_tokens_are_those_of_the_text_when_it_is_read(model):
    shown = Capture(
        tuple(Tap(Place(site, 1 if site.is_in_layer else 0), ALL) for site in RESIDUALS)
    )
    params = SamplingParams(max_tokens=30, temperature=1.0, seed=3, ignore_eos=True)
    request = capturing(Request("r", PROMPT, params), shown)
    [(answers, rows)] = engine(model).generate([request])
    text = PROMPT + tuple(answers[0].token_ids)
    assert num_inputs(request, answers[0]) == len(text) - 1
    read = Request("t", text[:-1], SamplingParams(max_tokens=0))
    _, expected = alone(model, capturing(read, shown))
    assert same(rows, expected)


def test_the_last_layers_lens_has_the_bits_of_prompt_logprobs(model):
    last = Place(RESID_POST, model.config.num_layers - 1)
    follows = tuple(range(50, 60))
    prompt = (*PROMPT[:20], *follows, 3)
    params = SamplingParams(max_tokens=0, prompt_logprobs=5)
    lens = Lens(5, follows)
    shown = Capture((Tap(last, ALL, reduction=lens),))
    [(answers, rows)] = engine(model).generate([capturing(Request("r", prompt, params), shown)])
    scored = answers[0].prompt_logprobs
    assert scored is not None
    ids, best, given = rows.values()
    for position, token in enumerate(scored):
        alternatives = list(zip(ids[position].tolist(), best[position].tolist(), strict=True))
        assert alternatives == list(token.top)
        if token.token_id in follows:
            assert given[position, follows.index(token.token_id)] == token.logprob
    assert len(ids) == len(prompt)


def test_sums_of_parts_and_of_weights(model):
    shown = everything(model.config)
    params = SamplingParams(max_tokens=5, ignore_eos=True)
    _, rows = alone(model, capturing(Request("r", PROMPT, params), shown))
    by_name = {name.partition(":")[2]: values for name, values in reversed(rows.items())}
    for layer in range(2):
        pre, attn, mlp, post = (
            by_name[f"blocks.{layer}.{name}"]
            for name in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
        )
        assert np.array_equal(bits(pre + attn + mlp), bits(post))
        weights = by_name[f"blocks.{layer}.attn.hook_pattern"]
        assert weights.shape == (104, model.config.num_heads, 104)
        assert np.allclose(weights.sum(-1), 1, atol=1e-6)
        assert not np.triu(weights.transpose(1, 0, 2), 1).any()
    embedded, mean = by_name["blocks.1.hook_resid_pre"], by_name["blocks.1.hook_resid_pre:mean"]
    in_order = embedded.astype(np.float64).cumsum(0)[-1] / len(embedded)
    assert np.array_equal(mean, in_order.astype(np.float32))
    norms = by_name["blocks.1.hook_resid_pre:norm"]
    assert np.allclose(norms, np.linalg.norm(embedded.astype("f8"), axis=1), rtol=1e-5)
    assert np.array_equal(bits(by_name["hook_embed"]), bits(by_name["blocks.0.hook_resid_pre"]))


def test_a_value_that_does_not_fit_ends_its_sequence_alone(model):
    place = Place(RESID_PRE, 1)
    taps = tuple(Tap(place, ALL, dtype=dtype) for dtype in ("bfloat16", "float16"))
    params = SamplingParams(max_tokens=4, ignore_eos=True)
    good = capturing(Request("good", PROMPT[:9], params), Capture(taps))
    loud = np.full((2, model.config.hidden_size), 65519.0, np.float32)
    loud[1, 3] = -65520.0  # rounds to what float16 has not
    put = Intervention(place, "set", (4, 7), values=loud)
    bad = changing(replace(good, request_id="bad"), put)
    (bad_answers, _), (good_answers, rows) = engine(model).generate([bad, good])
    error = bad_answers[0].error
    assert isinstance(error, CaptureOverflow)
    assert error.message == (
        "blocks.1.hook_resid_pre at position 7 does not fit float16; ask for float32 or bfloat16"
    )
    assert (without_cache_hits(good_answers), len(rows)) == (alone(model, good)[0], 2)
    assert same(rows, alone(model, good)[1])


def test_rows_are_the_same_after_preemption(model):
    shown = everything(model.config)
    params = SamplingParams(max_tokens=40, ignore_eos=True, logprobs=1)
    requests = [
        capturing(Request(str(index), PROMPT[index : index + 30], params), shown)
        for index in range(3)
    ]
    running = engine(model, num_blocks=8)
    for request, (answers, rows) in zip(requests, running.generate(requests), strict=True):
        expected, expected_rows = alone(model, request)
        assert without_cache_hits(answers) == expected
        assert same(rows, expected_rows)
    assert running.engine.stats().preemptions > 0
