"""What requests ask for and what they get, on real kernels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.errors import NonFiniteLogits
from tests.integration.engine_parts import TOKENIZER, best_with_token, engine_for, random_model

PROMPT = tuple(TOKENIZER.encode("the quick brown fox in a hall"))
POISON = 77
THE, SPACE_A = TOKENIZER.encode("the")[0], TOKENIZER.encode(" a")[0]


@pytest.fixture(scope="module", params=["cpu", "reference"])
def backend(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(backend):
    return random_model(backend)


@pytest.fixture
def answer(model):
    """Answers of one request with the given parameters."""

    def ask(n=1, prompt=PROMPT, **params):
        request = Request("r", prompt, SamplingParams(**{"max_tokens": 16, **params}), n)
        engine = engine_for(model)
        answers = engine.generate([request])[0]
        engine.check()
        assert engine.stats().blocks_used == 0
        return answers

    return ask


def test_greedy_takes_the_most_probable_token(answer):
    (greedy,) = answer(temperature=0.0, logprobs=20)
    assert greedy.token_ids == [best_with_token(logprob)[0] for logprob in greedy.logprobs]
    assert answer(temperature=1.0, top_k=1, seed=3)[0].token_ids == greedy.token_ids
    assert answer(temperature=1.0, top_p=1e-6, seed=3)[0].token_ids == greedy.token_ids
    assert answer(temperature=1.0, min_p=1.0, seed=3)[0].token_ids == greedy.token_ids


def test_the_seed_decides(answer):
    one, again, other = (answer(temperature=2.0, seed=seed, n=2) for seed in (1, 1, 2))
    assert one == again
    assert len({tuple(a.token_ids) for a in (*one, *other)}) == 4
    assert answer(temperature=2.0, seed=1)[0].token_ids == one[0].token_ids


def test_forced_tokens_come_out_as_text(answer):
    (forced,) = answer(max_tokens=5, logit_bias=((THE, 100.0),))
    assert forced.text == "thethethethethe"
    assert forced.finish_reason == "length"


def test_a_negative_bias_bans(answer):
    (plain,) = answer(temperature=0.0)
    (other,) = answer(temperature=0.0, logit_bias=((plain.token_ids[0], -100.0),))
    assert plain.token_ids[0] not in other.token_ids


def test_end_of_text_ends(answer):
    (ended,) = answer(logit_bias=((TOKENIZER.eos_id, 100.0),), logprobs=0)
    assert (ended.finish_reason, ended.stop_reason) == ("stop", None)
    assert (ended.token_ids, ended.text) == ([TOKENIZER.eos_id], "")
    assert len(ended.logprobs) == 1


def test_end_of_text_waits_for_min_tokens(answer):
    (ended,) = answer(min_tokens=5, logit_bias=((TOKENIZER.eos_id, 100.0),))
    assert len(ended.token_ids) == 6
    assert ended.token_ids.index(TOKENIZER.eos_id) == 5


def test_end_of_text_may_be_ignored(answer):
    (going,) = answer(ignore_eos=True, max_tokens=4, logit_bias=((TOKENIZER.eos_id, 100.0),))
    assert (going.token_ids, going.text) == ([TOKENIZER.eos_id] * 4, "")
    assert going.finish_reason == "length"


def test_stop_strings_are_not_in_the_text(answer):
    (stopped,) = answer(logit_bias=((THE, 100.0),), stop=("ethe", "x"))
    assert (stopped.text, stopped.finish_reason, stopped.stop_reason) == ("th", "stop", "ethe")
    assert stopped.token_ids == [THE, THE]


def test_stop_ids_are_not_in_the_text(answer):
    (stopped,) = answer(logit_bias=((THE, 100.0),), stop_token_ids=(THE,), min_tokens=1)
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", THE)
    assert stopped.token_ids[-1] == THE
    assert stopped.text == TOKENIZER.decode(stopped.token_ids[:-1], skip_special_tokens=True)


def test_deltas_add_up_to_the_plain_answer(model):
    params = SamplingParams(max_tokens=40, temperature=2.0, stop=("qq",), logprobs=1)
    request = Request("r", PROMPT, params)
    (whole,) = engine_for(model).generate([request])[0]
    engine, deltas = engine_for(model), []
    engine.add_request(request)
    while engine.has_work:
        deltas += engine.step()
    assert "".join(delta.text for delta in deltas) == whole.text
    assert [id for delta in deltas for id in delta.token_ids] == whole.token_ids
    assert [x for delta in deltas for x in delta.logprobs] == whole.logprobs
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)


def test_ids_without_a_token_are_never_sampled(model, answer):
    assert model.config.vocab_size > TOKENIZER.num_tokens
    answers = answer(n=16, max_tokens=32, temperature=50.0, logprobs=20, ignore_eos=True)
    seen = {id for a in answers for id in a.token_ids}
    assert len(seen) > 100
    assert max(seen) < TOKENIZER.num_tokens
    listed = {id for a in answers for logprob in a.logprobs for id, _ in logprob.top}
    assert max(listed) >= TOKENIZER.num_tokens, "they do count as alternatives"


def test_probabilities_are_over_all_rows(model, answer):
    (scored,) = answer(max_tokens=0, prompt_logprobs=20)
    assert len(scored.prompt_logprobs) == len(PROMPT) - 1
    for token, logprob in zip(PROMPT[1:], scored.prompt_logprobs, strict=True):
        assert logprob.token_id == token
        assert logprob.logprob <= logprob.top[0][1]
        assert sum(torch.tensor([value for _, value in logprob.top]).exp()) < 1


def test_echo_and_one_token_as_the_evaluation_harness_asks(answer):
    (echo,) = answer(max_tokens=1, temperature=0.0, logprobs=1, prompt_logprobs=1)
    assert len(echo.prompt_logprobs) == len(PROMPT) - 1
    assert len(echo.logprobs) == len(echo.token_ids) == 1


def test_the_whole_context_may_be_used(model, answer):
    context = model.config.max_positions
    prompt = (PROMPT * context)[: context - 1]
    (last,) = answer(prompt=prompt, max_tokens=1, prompt_logprobs=0)
    assert len(last.token_ids) == 1
    assert len(last.prompt_logprobs) == context - 2
    (scored,) = answer(prompt=(*prompt, 5), max_tokens=0, prompt_logprobs=0)
    assert len(scored.prompt_logprobs) == context - 1


def test_a_model_that_overflows_fails_one_request_only(backend):
    engine = engine_for(random_model(backend, infinite_token=POISON))
    good = Request("good", PROMPT, SamplingParams(max_tokens=20, temperature=0.0, logprobs=1))
    bad = replace(good, request_id="bad", prompt=(*PROMPT, POISON, 5))
    score = Request("score", bad.prompt, SamplingParams(max_tokens=0, prompt_logprobs=1))
    (wanted,) = engine_for(random_model(backend, infinite_token=POISON)).generate([good])[0]
    (first,), (failed,), (unscored,) = engine.generate([good, bad, score])
    for output in (failed, unscored):
        assert output.finish_reason == "error"
        assert isinstance(output.error, NonFiniteLogits)
        assert output.prompt_logprobs is None
        assert output.token_ids == []
    assert first.token_ids == wanted.token_ids
    assert engine.stats().non_finite == 2
    assert engine.stats().blocks_used == 0
    engine.check()


def test_a_cancelled_request_leaves_at_once(model):
    engine = engine_for(model)
    engine.add_request(Request("r", PROMPT, SamplingParams(max_tokens=100, ignore_eos=True), 4))
    engine.step()
    engine.step()
    assert engine.stats().running == 4
    assert {output.finish_reason for output in engine.abort("r")} == {"abort"}
    assert engine.stats().blocks_used == engine.stats().running == 0
    assert engine.step() == []
