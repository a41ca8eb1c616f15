"""Sequence: seeds, what ends it, what it asks of the sampler."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.engine.params import sequence_seed
from pythia_bento.engine.sequence import Sequence
from tests.unit.engine.toy import TOKENIZER, request

A, B = TOKENIZER.encode("ab")


def sequence(index=0, prompt=(5, 6, 7), **params):
    return Sequence(request(prompt=prompt, **params), index, 0, TOKENIZER, block_size=2)


def test_the_first_continuation_keeps_the_seed_and_the_others_are_splitmix64():
    assert sequence_seed(1234567, 0) == 1234567
    # The published first outputs of splitmix64 seeded with 1234567.
    assert sequence_seed(1234567, 1) == 6457827717110365317
    assert sequence_seed(1234567, 2) == 3203168211198807973
    assert sequence_seed(-1, 0) == 2**64 - 1


def test_end_of_text_stops_without_a_reason_and_without_text():
    s = sequence(max_tokens=4)
    assert (s.accept(A), s.accept(TOKENIZER.eos_id)) == ("a", "")
    assert (s.finish_reason, s.stop_reason, s.num_generated) == ("stop", None, 2)


def test_end_of_text_may_be_ignored():
    s = sequence(max_tokens=2, ignore_eos=True)
    assert s.accept(TOKENIZER.eos_id) == ""
    assert s.finish_reason is None


def test_a_stop_id_is_the_reason_and_its_text_is_left_out():
    s = sequence(stop_token_ids=(B,))
    assert (s.accept(A), s.accept(B)) == ("a", "")
    assert (s.finish_reason, s.stop_reason) == ("stop", B)


def test_a_stop_id_lets_held_text_out():
    s = sequence(stop=("ac",), stop_token_ids=(B,))
    assert (s.accept(A), s.accept(B)) == ("", "a")


def test_a_stop_string_goes_before_the_length():
    s = sequence(max_tokens=2, stop=("ab",))
    assert (s.accept(A), s.accept(B)) == ("", "")
    assert (s.finish_reason, s.stop_reason) == ("stop", "ab")


def test_the_length_lets_held_text_out():
    s = sequence(max_tokens=1, stop=("ab",))
    assert s.accept(A) == "a"
    assert (s.finish_reason, s.stop_reason) == ("length", None)


def test_min_tokens_bans_what_would_stop():
    s = sequence(min_tokens=1, stop_token_ids=(B,), logit_bias=((A, 1.5), (B, 2.0)))
    early = dict(s.sampling_row().bias)
    assert early == {A: 1.5, B: -math.inf, TOKENIZER.eos_id: -math.inf}
    s.accept(A)
    assert dict(s.sampling_row().bias) == {A: 1.5, B: 2.0}


def test_min_tokens_does_not_ban_an_ignored_end_of_text():
    assert sequence(min_tokens=1, ignore_eos=True).sampling_row().bias == ()


def test_the_row_names_the_position_of_the_new_token():
    s = sequence(1, seed=9, temperature=0.5, top_k=3, top_p=0.8, min_p=0.1)
    row = s.sampling_row()
    assert (row.position, row.seed) == (3, sequence_seed(9, 1))
    assert (row.temperature, row.top_k, row.top_p, row.min_p) == (0.5, 3, 0.8, 0.1)


def test_penalties_follow_the_tokens():
    s = sequence(prompt=(7, 5, 7), max_tokens=5, repetition_penalty=1.5, presence_penalty=0.5)
    assert seen(s) == {7: 0, 5: 0}
    for token in (A, 5, A):
        s.accept(token)
    assert seen(s) == {7: 0, 5: 1, A: 2}
    penalties = s.sampling_row().penalties
    assert (penalties.repetition, penalties.presence, penalties.frequency) == (1.5, 0.5, 0)
    s.release()  # preempted: the tokens stay, and so do their counts
    assert seen(s) == {7: 0, 5: 1, A: 2}


def test_only_repetition_looks_at_the_prompt():
    s = sequence(prompt=(7, 5, 7), frequency_penalty=1.0)
    s.accept(A)
    assert seen(s) == {A: 1}
    assert sequence(presence_penalty=0, repetition_penalty=1).sampling_row().penalties is None


def seen(s):
    penalties = s.sampling_row().penalties
    return dict(zip(penalties.ids.tolist(), penalties.counts.tolist(), strict=True))


def test_what_stopped_it_may_stay_in_the_text():
    s = sequence(max_tokens=4, stop=("ab",), include_stop_str_in_output=True)
    assert (s.accept(A), s.accept(B)) == ("", "ab")
    assert (s.finish_reason, s.stop_reason) == ("stop", "ab")
    s = sequence(stop=("ac",), stop_token_ids=(B,), include_stop_str_in_output=True)
    assert (s.accept(A), s.accept(B)) == ("", "ab")
    assert (s.finish_reason, s.stop_reason) == ("stop", B)


def test_special_tokens_have_text_unless_they_are_skipped():
    eos = TOKENIZER.eos_id
    for include, text in ((False, ""), (True, "<|endoftext|>")):
        s = sequence(skip_special_tokens=False, include_stop_str_in_output=include)
        assert (s.accept(1), s.accept(eos)) == ("<|padding|>", text)
    s = sequence(include_stop_str_in_output=True)
    assert (s.accept(1), s.accept(eos)) == ("", "")


def test_prompt_rows_are_those_of_the_first_continuation_only():
    assert sequence(prompt_logprobs=0).prompt_rows == range(0, 2)
    assert not sequence(1, prompt_logprobs=0).prompt_rows
    assert not sequence().prompt_rows


def test_the_prefix_cache_may_not_replace_rows_that_are_needed():
    assert sequence().max_cached_tokens == 2
    scoring = sequence(prompt_logprobs=1)
    assert scoring.max_cached_tokens == 0
    scoring.score_to(1)
    assert scoring.prompt_rows == range(1, 2)
    scoring.score_to(3)
    assert scoring.max_cached_tokens == 2


def test_blocks_are_named_by_the_whole_prefix():
    one, two, three = (
        sequence(prompt=prompt) for prompt in [(1, 2, 3, 4), (1, 2, 9, 4), (9, 2, 3, 4)]
    )
    assert one.block_names(1) == two.block_names(1) != three.block_names(1)
    assert len({s.block_names(2)[1] for s in (one, two, three)}) == 3


def test_releasing_keeps_tokens():
    s = sequence(max_tokens=4)
    s.hold([7, 3])
    s.accept(A)
    s.num_computed = 3
    assert s.release() == [7, 3]
    assert (s.num_computed, s.blocks, s.num_tokens) == (0, [], 4)
    assert s.token_ids[:4].tolist() == [5, 6, 7, A]


CHOICES = {
    "stop": st.lists(st.text("ab", min_size=1, max_size=3), max_size=2).map(tuple),
    "stop_token_ids": st.sampled_from([(), (A,), (TOKENIZER.encode("ab")[0],)]),
    "min_tokens": st.integers(0, 4),
    "max_tokens": st.integers(4, 12),
    "ignore_eos": st.booleans(),
    "include_stop_str_in_output": st.booleans(),
    "skip_special_tokens": st.booleans(),
    "presence_penalty": st.sampled_from([0.0, 0.5]),
}
LETTERS = st.sampled_from([A, B, *TOKENIZER.encode("aé"), *TOKENIZER.encode("€"), 1])


@given(st.fixed_dictionaries(CHOICES), st.lists(LETTERS | st.just(TOKENIZER.eos_id), max_size=12))
def test_a_visits_tokens_are_accepted_as_one_by_one(params, ids):
    together, alone = sequence(**params), sequence(**params)
    ids = ids[: params["max_tokens"]]
    text = ""
    for id in ids:
        text += alone.accept(id)
        if alone.finish_reason is not None:
            break
    assert together.accept_all(ids) == text
    for name in ("num_tokens", "finish_reason", "stop_reason"):
        assert getattr(together, name) == getattr(alone, name)
    assert together.token_ids[: alone.num_tokens].tolist() == [5, 6, 7, *ids][: alone.num_tokens]
    if together.finish_reason is None:
        assert together.finish("abort") == alone.finish("abort")
    if params["presence_penalty"]:
        assert seen(together) == seen(alone)


FILTERS = {
    "top_k": st.sampled_from([0, -1, 3]),
    "top_p": st.sampled_from([1.0, 0.5]),
    "min_p": st.sampled_from([0.0, 0.1]),
    "logit_bias": st.sampled_from([(), ((A, 1.0),)]),
    "frequency_penalty": st.sampled_from([0.0, 1.0]),
    "repetition_penalty": st.sampled_from([1.0, 1.5]),
    "min_tokens": st.integers(0, 2),
    "ignore_eos": st.booleans(),
}


@given(st.fixed_dictionaries(FILTERS))
def test_what_a_device_is_told_once_says_what_every_row_asks_for(params):
    s = sequence(max_tokens=4, **params)
    early = s.num_prompt + s.params.min_tokens
    for _ in range(3):
        row = s.sampling_row()
        is_filtered = row.top_k > 0 or row.top_p < 1 or row.min_p > 0
        assert s.has_options or not (is_filtered or row.bias or row.penalties)
        is_early = row.position < early
        told = {token: before if is_early else after for token, before, after in s.biases}
        assert {token: value for token, value in told.items() if value} == dict(row.bias)
        assert s.num_wanted == 4 - s.num_generated
        s.accept(A)
