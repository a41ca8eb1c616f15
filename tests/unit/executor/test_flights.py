"""What is under way on a device, and which chunks it answers."""

from __future__ import annotations

from pythia_bento.engine.executor import Chunk
from pythia_bento.engine.sequence import Sequence
from pythia_bento.executor.flights import (
    StepsInFlight,
    pass_in_flight,
    places_of,
    tokens_found,
)
from tests.unit.engine.toy import TOKENIZER, request


def sequence(*prompt: int, max_tokens: int = 8) -> Sequence:
    return Sequence(request(prompt=prompt, max_tokens=max_tokens), 0, 0, TOKENIZER, 4)


def test_steps_are_of_the_chunk_that_begins_where_they_do() -> None:
    one, other = sequence(5, 6, 7), sequence(5, 6)
    flight = StepsInFlight([(one, 2), (other, 1)], 4, list, None, [])
    chunks = [Chunk(other, 1, 1), Chunk(sequence(5, 6, 7), 2, 1), Chunk(one, 2, 1)]
    assert places_of(flight, chunks) == [1, None, 0]
    assert places_of(flight, [Chunk(one, 3, 1), Chunk(other, 0, 2)]) == [None, None]
    one.num_admissions += 1  # as below, while a pass with taps was computed
    assert places_of(flight, [Chunk(one, 2, 1), Chunk(other, 1, 1)]) == [None, 1]


def test_a_pass_is_of_chunks_of_the_same_extent_and_admission() -> None:
    one, long = sequence(5, 6, 7), sequence(*range(2, 20))
    chunks = [Chunk(one, 3, 1), Chunk(long, 0, 7)]
    flight = pass_in_flight(chunks, 1, lambda: [9, 8], "there")
    assert flight.rows == [(one, 3), (long, 6)]
    assert places_of(flight, [Chunk(long, 0, 7), Chunk(one, 3, 1)]) == [1, 0]
    assert places_of(flight, [Chunk(long, 0, 8), Chunk(one, 2, 1)]) == [None, None]
    long.num_admissions += 1  # it was preempted, and its blocks are others now
    assert places_of(flight, [Chunk(long, 0, 7)]) == [None]


def test_a_piece_of_a_prompt_has_no_token_and_a_follower_has_one() -> None:
    one, long, whole = sequence(5, 6, 7), sequence(*range(2, 20)), sequence(9, 8)
    chunks = [Chunk(one, 3, 1), Chunk(long, 0, 7), Chunk(whole, 0, 2)]
    flight = pass_in_flight(chunks, 1, lambda: [4, 5, -1], None)
    assert flight.yields == [True, False, True]
    follower, piece, failed = flight.results()
    assert (follower.token_ids, piece.token_ids) == ([4], [])
    assert follower.is_finite and piece.is_finite and not failed.is_finite


def test_tokens_before_a_failure_count() -> None:
    assert tokens_found([3, 4]).token_ids == [3, 4]
    kept = tokens_found([3, -1, 5])
    assert kept.token_ids == [3] and kept.is_finite
    assert not tokens_found([-1, 5]).is_finite
