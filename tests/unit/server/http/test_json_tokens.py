"""Tokens as JSON, against the objects that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from pythia_bento.engine.logprobs import HEAD, PromptLogprobs
from pythia_bento.handlers.streamed import shown_prompt
from pythia_bento.server.http.json_tokens import (
    alternatives,
    json_tokens,
    names_by_id,
    names_by_text,
    numbers,
)
from tests.tokenizer_parts import small_tokenizer

TOKENIZER = small_tokenizer()
VALUES = [-0.0, -1e-30, -0.1, -1.5, -3.3333333, -17.25, -1e30]


def scored(ids: list[int], num_top: int = 0) -> PromptLogprobs:
    """Any numbers, all different."""
    columns = np.zeros((HEAD + 2 * num_top, len(ids)), np.int32)
    columns[0] = ids
    columns[1] = np.resize(np.array(VALUES, np.float32), len(ids)).view(np.int32)
    for place in range(num_top):
        columns[HEAD + place] = np.roll(ids, place + 1)
        columns[HEAD + num_top + place] = np.float32(-0.3 * place - 0.01).view(np.int32)
    return PromptLogprobs(columns)


@pytest.mark.parametrize("num_top", [0, 2])
@pytest.mark.parametrize("count", [0, 1, 500])
async def test_tokens_are_those_objects_to_the_byte(count: int, num_top: int) -> None:
    tokens = scored([id % TOKENIZER.num_tokens for id in range(count)], num_top)
    expected = orjson.dumps(await shown_prompt(TOKENIZER, tokens))
    assert orjson.dumps(await json_tokens(TOKENIZER, tokens)) == expected
    assert orjson.dumps(await json_tokens(TOKENIZER, tokens)) == expected  # and with names kept


def test_numbers_are_written_as_doubles() -> None:
    values = np.array(VALUES, np.float32)
    assert numbers(values) == [orjson.dumps(value) for value in values.tolist()]
    assert numbers(values[:0]) == []


@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize("num_top", [0, 1, 3])
def test_alternatives_have_the_best_and_the_token_itself(num_top: int, as_ids: bool) -> None:
    ids = [5, 5, 7, 9, 300, 7, TOKENIZER.eos_id]  # neighbours are alternatives: some are the token
    tokens, names = scored(ids, num_top), (names_by_id if as_ids else names_by_text)(TOKENIZER)
    own = [names[id] for id in ids]
    found = alternatives(names, tokens, own, numbers(tokens.values))
    text = "token_id:{}".format if as_ids else TOKENIZER.token_text
    for written, token in zip(found, tokens, strict=True):
        expected: dict[str, Any] = {}
        for id, value in (*token.top, (token.token_id, token.logprob)):
            expected.setdefault(text(id), value)
        assert written == orjson.dumps(expected)
        assert len(orjson.loads(written)) == len(expected)
