"""Log-probabilities of prompts as columns: what they say when somebody looks at single tokens."""

from __future__ import annotations

import pickle

import numpy as np

from pythia_bento.engine.logprobs import HEAD, PromptLogprobs, TokenLogprob, end_to_end


def columns(count: int, num_top: int, seed: int = 0) -> PromptLogprobs:
    draw = np.random.default_rng(seed)
    found = draw.integers(0, 300, (HEAD + 2 * num_top, count)).astype(np.int32)
    for row in (1, *range(HEAD + num_top, len(found))):
        found[row] = draw.normal(size=count).astype(np.float32).view(np.int32)
    return PromptLogprobs(found)


def test_tokens_are_the_columns_one_by_one() -> None:
    found = columns(4, 2)
    tokens = list(found)
    assert len(found) == len(tokens) == 4
    assert [token.token_id for token in tokens] == found.ids.tolist()
    assert [token.logprob for token in tokens] == found.values.tolist()
    for place, token in enumerate(tokens):
        values = found.top_values[:, place].tolist()
        assert token.top == tuple(zip(found.top_ids[:, place].tolist(), values, strict=True))


def test_without_alternatives_tokens_have_none() -> None:
    found = columns(3, 0)
    values = zip(found.ids.tolist(), found.values.tolist(), strict=True)
    assert list(found) == [TokenLogprob(id, value) for id, value in values]


def test_fewer_alternatives_are_the_first_ones() -> None:
    found = columns(5, 3)
    for num_top in range(5):
        fewer = found.limited(num_top)
        assert fewer.num_top == min(num_top, 3)
        assert [token.top for token in fewer] == [token.top[:num_top] for token in found]
    assert found.limited(1).ranks.tolist() == found.ranks.tolist()


def test_parts_end_to_end_are_the_whole() -> None:
    found = columns(9, 1)
    assert end_to_end([found[:2], found[2:3], found[3:]]) == found
    assert end_to_end([found]) is found
    assert len(end_to_end([])) == 0
    assert found[1:] != found
    assert found != columns(9, 1, seed=1)


def test_the_way_through_a_pipe_changes_nothing() -> None:
    for found in (columns(6, 2)[1:4], columns(0, 0), end_to_end([])):
        again = pickle.loads(pickle.dumps(found, pickle.HIGHEST_PROTOCOL))
        assert again == found
        assert again.columns.shape == found.columns.shape
        assert list(again) == list(found)
