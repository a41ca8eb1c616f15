from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.engine.ngrams import LEAST, MOST, NgramIndex

TEXTS = st.lists(st.integers(0, 2), max_size=40)


def index_of(*pieces: list[int]) -> NgramIndex:
    index = NgramIndex()
    for piece in pieces:
        index.extend(piece)
    return index


def naive(text: list[int], most: int) -> list[int]:
    """The same by looking through all of the text."""
    for length in range(min(MOST, len(text)), LEAST - 1, -1):
        for end in range(len(text) - 1, length - 1, -1):
            if text[end - length : end] == text[-length:]:
                longer = list(text)
                for place in range(most):
                    longer.append(longer[end + place])
                return longer[len(text) :]
    return []


@given(st.lists(TEXTS, max_size=6), st.integers(0, 9))
def test_it_drafts_what_looking_through_the_text_finds(pieces: list[list[int]], most: int) -> None:
    index, text = NgramIndex(), list[int]()
    for piece in pieces:
        index.extend(piece)
        text += piece
        assert index.draft(most) == naive(text, most)
        assert len(index) == len(text)


@given(TEXTS, st.data())
def test_pieces_do_not_matter(text: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    assert index_of(text[:cut], text[cut:]).draft(5) == index_of(text).draft(5)


def test_the_longest_wins_and_of_these_the_last() -> None:
    assert index_of([1, 2, 3, 4, 9, 5, 2, 3, 4, 8, 1, 2, 3, 4]).draft(2) == [9, 5]
    assert index_of([2, 3, 4, 9, 2, 3, 4, 8, 7, 2, 3, 4]).draft(2) == [8, 7]


def test_what_repeats_goes_on() -> None:
    assert index_of([5, 6, 7, 5, 6, 7]).draft(7) == [5, 6, 7, 5, 6, 7, 5]
    assert index_of([5, 5, 5, 5]).draft(4) == [5, 5, 5, 5]


def test_new_tokens_have_no_draft() -> None:
    assert index_of([]).draft(3) == []
    assert index_of([1]).draft(3) == []
    assert index_of([1, 2, 3, 4, 1, 2, 5]).draft(3) == []
