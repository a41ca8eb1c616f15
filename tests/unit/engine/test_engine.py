"""Engine over a toy model: answers, endings, errors, and a state machine over everything."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.errors import (
    CheckpointError,
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    NonFiniteLogits,
)
from tests.amounts import amounts
from tests.unit.engine.toy import (
    POISON,
    ROWS,
    TOKENIZER,
    LateExecutor,
    ToyExecutor,
    ToyModel,
    request,
    toy_engine,
)


def alone(r):
    """The answers of a request that nobody else disturbs."""
    return toy_engine(256, max_tokens_per_step=256).generate([r])[0]


def test_answers_have_the_wanted_length_and_their_text():
    (answer,) = alone(request(max_tokens=9, ignore_eos=True))
    assert len(answer.token_ids) == 9
    assert answer.finish_reason == "length"
    assert answer.text == TOKENIZER.decode(answer.token_ids, skip_special_tokens=True)
    assert answer.logprobs is answer.prompt_logprobs is None


def test_logprobs_come_with_each_token():
    (answer,) = alone(request(max_tokens=5, logprobs=3, temperature=0.0))
    assert [logprob.token_id for logprob in answer.logprobs] == answer.token_ids
    for logprob in answer.logprobs:
        values = [value for _, value in logprob.top]
        assert values == sorted(values, reverse=True)
        assert len(values) == 3


def test_generating_and_scoring_give_the_same_logprobs():
    (answer,) = alone(request(max_tokens=12, logprobs=2, temperature=0.0, ignore_eos=True))
    whole = (5, 6, 7, *answer.token_ids)
    (score,) = alone(request(prompt=whole, max_tokens=0, prompt_logprobs=2))
    assert list(score.prompt_logprobs)[2:] == answer.logprobs
    assert (score.finish_reason, score.token_ids, score.text) == ("length", [], "")


def test_a_prompt_of_one_token_has_no_logprobs():
    (score,) = alone(request(prompt=(5,), max_tokens=0, prompt_logprobs=0))
    assert len(score.prompt_logprobs) == 0


def test_scoring_is_the_same_in_slices_and_pieces():
    prompt = tuple(2 + i % 60 for i in range(62))
    r = request(prompt=prompt, max_tokens=1, prompt_logprobs=1)
    pieces = toy_engine(64, max_batch_size=1, max_tokens_per_step=7)
    assert pieces.generate([r])[0] == alone(r)


def test_continuations_share_the_prompt_and_differ():
    prompt = tuple(range(2, 15))
    engine = toy_engine(64)
    answers = engine.generate([request(prompt=prompt, n=3, max_tokens=8, temperature=4.0, seed=3)])
    assert len({tuple(answer.token_ids) for answer in answers[0]}) == 3
    assert [answer.num_cached_tokens for answer in answers[0]] == [0, 12, 12]
    for index, answer in enumerate(answers[0]):
        assert answer.index == index


def test_every_continuation_carries_the_prompts_logprobs():
    answers = alone(request(n=2, max_tokens=2, prompt_logprobs=0))
    assert answers[0].prompt_logprobs == answers[1].prompt_logprobs
    assert len(answers[0].prompt_logprobs) == 2


def test_ids_without_a_token_are_not_sampled():
    tokens = [id for seed in range(40) for a in alone(request(seed=seed)) for id in a.token_ids]
    assert max(tokens) < TOKENIZER.num_tokens < ROWS


def test_a_stop_id_ends_the_answer():
    r = request(max_tokens=20, ignore_eos=True)
    (plain,) = alone(r)
    stop = plain.token_ids[4]
    (answer,) = alone(replace(r, params=replace(r.params, stop_token_ids=(stop,))))
    assert answer.token_ids == plain.token_ids[: plain.token_ids.index(stop) + 1]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)


def test_aborting_frees_blocks_and_ends_every_continuation():
    engine = toy_engine(16)
    engine.add_request(request("a", n=2, max_tokens=30, ignore_eos=True))
    engine.step()
    outputs = engine.abort("a")
    assert [(o.index, o.finish_reason) for o in outputs] == [(0, "abort"), (1, "abort")]
    assert engine.abort("a") == engine.abort("unknown") == []
    assert engine.stats().blocks_used == 0
    assert not engine.has_work
    engine.check()


def test_an_aborted_score_has_no_partial_logprobs():
    engine = toy_engine(16, max_batch_size=1, max_tokens_per_step=2)
    engine.add_request(request("a", prompt=(5,) * 9, prompt_logprobs=0))
    engine.step()
    assert engine.abort("a")[0].prompt_logprobs is None


def test_non_finite_logits_end_one_request_only():
    engine = toy_engine(64)
    bad = request("bad", prompt=(*range(2, 20), POISON, 5), max_tokens=4)
    good = request("good", prompt=tuple(range(2, 20)), max_tokens=12, ignore_eos=True)
    (failed,), (answer,) = engine.generate([bad, good])
    assert failed.finish_reason == "error"
    assert isinstance(failed.error, NonFiniteLogits)
    assert failed.token_ids == []
    assert answer.token_ids == alone(good)[0].token_ids
    assert engine.stats().non_finite == 1
    assert engine.stats().blocks_used == 0
    engine.check()


@pytest.mark.parametrize("params", [{}, {"max_tokens": 0, "prompt_logprobs": 1}])
def test_blocks_of_a_failed_request_are_not_cached(params):
    engine = toy_engine(64, max_batch_size=1, max_tokens_per_step=4)
    bad = request("bad", prompt=(*range(2, 20), POISON, *range(2, 20)), **params)
    assert engine.generate([bad])[0][0].error is not None
    assert engine.stats().blocks_cached == 0
    assert all(not math.isnan(x.logprob) for x in engine.generate([bad])[0][0].logprobs or [])


@pytest.mark.parametrize("size", [1, 2])
def test_a_failed_request_fails_alike_however_its_prompt_is_cut(size):
    engine = toy_engine(64, max_batch_size=1, max_tokens_per_step=size)
    (failed,) = engine.generate([request(prompt=(5, POISON), prompt_logprobs=0)])[0]
    assert failed.error is not None
    assert failed.prompt_logprobs is None


def test_continuations_of_a_failed_request_fail_too():
    answers = alone(request(prompt=(5, POISON), n=2, prompt_logprobs=0))
    assert [answer.finish_reason for answer in answers] == ["error", "error"]
    assert [answer.prompt_logprobs for answer in answers] == [None, None]


def test_refused_requests_leave_nothing_behind():
    engine = toy_engine(4)
    with pytest.raises(ContextLengthExceeded, match="KV cache holds 16 tokens"):
        engine.generate([request("a", max_tokens=2), request(prompt=(5,) * 10, max_tokens=8)])
    engine.add_request(request("a", max_tokens=2))
    with pytest.raises(InvalidRequest, match="request id 'a' is in use"):
        engine.add_request(request("a", max_tokens=2))
    assert engine.stats().waiting == 1


def test_a_closed_engine_says_so():
    engine = toy_engine(8)
    engine.add_request(request("a"))
    assert [output.finish_reason for output in engine.close()] == ["abort"]
    with pytest.raises(EngineUnavailable):
        engine.add_request(request("b"))
    with pytest.raises(EngineUnavailable):
        engine.step()


def test_stats_count():
    engine = toy_engine(64)
    engine.generate([request("a", max_tokens=5, ignore_eos=True)])
    engine.add_request(request("b"))
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.generation_tokens, stats.steps) == (6, 5, 5)
    assert (stats.waiting, stats.running, stats.blocks_total) == (1, 0, 64)
    assert engine.step()
    assert (engine.stats().waiting, engine.stats().running, engine.stats().blocks_used) == (0, 1, 1)


def test_a_step_without_work_is_empty():
    assert toy_engine(8).step() == []


def test_a_tokenizer_larger_than_the_model_is_refused():
    model = ToyModel()
    model.config = replace(model.config, vocab_size=200)
    with pytest.raises(CheckpointError, match="the tokenizer has 268 tokens"):
        Engine(ToyExecutor(model, EngineConfig(4)), TOKENIZER)


# Few tokens, so that requests share prefixes; POISON now and then.
PROMPTS = st.one_of(
    *[st.lists(st.sampled_from([2, 3]), min_size=1, max_size=14)] * 5,
    st.lists(st.sampled_from([2, 3, POISON]), min_size=1, max_size=14),
).map(tuple)
PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.sampled_from([0, 1, 4, 9, 10, 11]),
    ignore_eos=st.just(True),
    temperature=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 3),
    logprobs=st.sampled_from([None, 0, 2]),
    prompt_logprobs=st.sampled_from([None, None, 1]),
    stop=st.sampled_from([(), ("a", "the")]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 1.5]),
    # Where there are only two of them drafts are often right.
    logit_bias=st.sampled_from([(), ((2, 100.0), (3, 100.0))]),
)
# Blocks (12 of 2 tokens hold the longest request), sequences in a step, tokens beyond those.
SIZES = st.tuples(st.integers(12, 16), st.integers(1, 5), st.integers(0, 12))


class EngineMachine(RuleBasedStateMachine):
    """Random arrivals and cancellations over tiny pools: no leak, no starvation, same answers."""

    def __init__(self):
        super().__init__()
        self.engine = None
        self.open = {}
        self.answers = {}
        self.count = 0
        self.work = 1  # tokens that the engine may at most have to compute, with recomputation

    @precondition(lambda self: self.engine is None)
    @rule(
        sizes=SIZES,
        kind=st.sampled_from([ToyExecutor, LateExecutor]),
        speculates=st.booleans(),
    )
    def start(self, sizes, kind, speculates):
        blocks, batch, extra = sizes
        limits = {"max_batch_size": batch, "max_tokens_per_step": batch + extra}
        limits["speculates"] = speculates
        self.engine = toy_engine(blocks, block_size=2, kind=kind, **limits)

    @precondition(lambda self: self.engine is not None)
    @rule(arrivals=st.lists(st.tuples(PROMPTS, PARAMS, st.integers(1, 3)), min_size=1, max_size=4))
    def arrive(self, arrivals):
        for prompt, params, n in arrivals:
            self.count += 1
            r = Request(str(self.count), prompt, params, n)
            self.engine.add_request(r)
            self.open[r.request_id] = r
            self.work += n * (len(prompt) + params.max_tokens)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data):
        id = data.draw(st.sampled_from(sorted(self.open)))
        self.engine.abort(id)
        del self.open[id]

    @precondition(lambda self: self.open)
    @rule(count=st.integers(1, 8))
    def steps(self, count):
        for _ in range(count):
            self.step()

    def step(self):
        for delta in self.engine.step():
            answer = self.answers.setdefault((delta.request_id, delta.index), delta)
            if answer is not delta:
                answer.extend(delta)
            answers = [self.answers.get((delta.request_id, i)) for i in range(self.n(delta))]
            if all(answer is not None and answer.finish_reason for answer in answers):
                self.compare(self.open.pop(delta.request_id), answers)
        self.engine.check()

    def n(self, delta):
        return self.open[delta.request_id].n

    def compare(self, r, answers):
        for answer, wanted in zip(answers, alone(r), strict=True):
            answer.num_cached_tokens = wanted.num_cached_tokens
            assert str(answer.error) == str(wanted.error)
            answer.error = wanted.error
            assert answer == wanted

    @invariant()
    def no_block_is_lost(self):
        if self.engine is not None:
            self.engine.check()
            assert self.engine.has_work == bool(self.open)

    def teardown(self):
        if self.engine is None:
            return
        # The oldest sequence moves by at least one token a step; each may be started again
        # whenever an older one is done.
        for _ in range(self.work * (self.count * 3 + 1)):
            if not self.open:
                break
            self.step()
        assert not self.open, "somebody starved"
        assert self.engine.stats().blocks_used == 0


@amounts(10, 40)
def test_random_arrivals_and_cancellations(amount):
    walk = settings(deadline=None, max_examples=amount, stateful_step_count=20)
    run_state_machine_as_test(EngineMachine, settings=walk)
