"""Which of some drafted rows are the answer's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.engine.logprobs import TokenLogprob
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.sequence import Sequence as Continuation
from pythia_bento.executor.queued_results import QueuedResults
from pythia_bento.executor.verified import Verification
from tests.tokenizer_parts import small_tokenizer

TOKENIZER = small_tokenizer()
PROMPT = (5, 6, 7)


def chunk_of(drafts: Sequence[int] = (), **params: object) -> Chunk:
    """The last token of a prompt, and drafts behind it."""
    asked = Request("r", PROMPT, SamplingParams(max_tokens=9, **params))  # type: ignore[arg-type]
    sequence = Continuation(asked, 0, 0, TOKENIZER, 16)
    sequence.token_ids[3 : 3 + len(drafts)] = drafts
    return Chunk(sequence, 2, 1 + len(drafts), len(drafts))


class Chosen(QueuedResults):
    """So many tokens, -1 where a row is not finite."""

    def __init__(self, *tokens: int) -> None:
        self._tokens = tokens

    def put_into(self, results: Sequence[ChunkResult]) -> None:
        for token, result in zip(self._tokens, results, strict=True):
            result.token_ids.append(token)
            result.logprobs.append(TokenLogprob(token, -float(token), ()))
            result.is_finite = token >= 0


@pytest.mark.parametrize(
    ("drafts", "chosen", "kept"),
    [
        ((), [4], [4]),
        ((8, 9), [8, 9, 3], [8, 9, 3]),
        ((8, 9), [8, 4, 3], [8, 4]),
        ((8, 9), [4, 9, 3], [4]),
        ((8, 9), [8, -1, 3], [8]),
        ((8, 9), [8, 9, -1], [8, 9]),
    ],
)
def test_tokens_hold_up_to_the_first_that_was_not_drafted(
    drafts: tuple[int, ...], chosen: list[int], kept: list[int]
) -> None:
    result = ChunkResult([], [])
    Verification([chunk_of(drafts)]).deliver(Chosen(*chosen), [result])
    assert result.token_ids == [logprob.token_id for logprob in result.logprobs] == kept
    assert result.is_finite


def test_a_first_row_that_is_not_finite_fails() -> None:
    result = ChunkResult([], [])
    Verification([chunk_of((8,))]).deliver(Chosen(-1, 3), [result])
    assert not result.is_finite


def test_each_chunk_has_its_own_rows() -> None:
    verified = Verification([chunk_of(), chunk_of((8, 9)), chunk_of((4,), logprobs=2)])
    assert verified.rows([10, 13, 20]) == [9, 10, 11, 12, 18, 19]
    assert verified.limits() == [None, None, None, None, 2, 2]
    assert [row.position for row in verified.sampling_rows()] == [3, 3, 4, 5, 3, 4]
    results = [ChunkResult([], []) for _ in range(3)]
    verified.deliver(Chosen(1, 8, 2, 3, 4, 5), results)
    assert [result.token_ids for result in results] == [[1], [8, 2], [4, 5]]


def test_rows_are_chosen_as_if_the_draft_before_them_was_known() -> None:
    params = {"repetition_penalty": 2.0, "min_tokens": 2, "stop_token_ids": (9,)}
    chunk = chunk_of((8, 8, 6), **params)
    rows = Verification([chunk]).sampling_rows()
    assert [(9, float("-inf")) in row.bias for row in rows] == [True, True, False, False]
    seen = [
        dict(zip(r.penalties.ids, r.penalties.counts, strict=True)) for r in rows if r.penalties
    ]
    known = dict.fromkeys(PROMPT, 0)
    assert seen == [known, known | {8: 1}, known | {8: 2}, known | {8: 2, 6: 1}]
    assert chunk.sequence.sampling_row().penalties is not None
    for token in (8, 8, 6):
        chunk.sequence.accept(token)
    now = chunk.sequence.sampling_row().penalties
    assert now is not None
    assert dict(zip(now.ids, now.counts, strict=True)) == seen[-1]
