"""Detokenizer: deltas add up to the plain answer, halves and stop strings never come out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.engine.detokenizer import Detokenizer
from tests.tokenizer_parts import small_tokenizer

TOKENIZER = small_tokenizer()
IDS = st.lists(st.integers(0, TOKENIZER.num_tokens - 1), max_size=60)
# Two letters and short strings: overlaps, repeats and stop strings inside one another abound.
TEXT = st.text("abé", max_size=40)
STOPS = st.lists(st.text("abé", min_size=1, max_size=5), max_size=4)


def deltas(ids, stop=(), min_tokens=0):
    detokenizer = Detokenizer(TOKENIZER, stop)
    out = []
    for count, id in enumerate(ids, start=1):
        out.append(detokenizer.push(id, may_stop=count >= min_tokens))
        if detokenizer.stopped_by is not None:
            return out, detokenizer.stopped_by
    return [*out, detokenizer.flush()], None


def first_stop(text, stop):
    """Reading one character after the other: the first to be complete, then the longest."""
    for end in range(1, len(text) + 1):
        found = [s for s in stop if text[:end].endswith(s)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(IDS)
def test_deltas_add_up_to_the_decoding(ids):
    assert "".join(deltas(ids)[0]) == TOKENIZER.decode(ids, skip_special_tokens=True)


@given(TEXT)
def test_characters_are_never_cut(text):
    assert "�" not in "".join(deltas(TOKENIZER.encode(text))[0])


@given(TEXT, STOPS)
def test_stops_as_a_reader_of_characters_would(text, stop):
    out, stopped_by = deltas(TOKENIZER.encode(text), stop)
    assert ("".join(out), stopped_by) == first_stop(text, stop)


@given(st.text("ab", max_size=40), STOPS)
def test_nothing_is_held_that_cannot_begin_a_stop_string(text, stop):
    detokenizer, out = Detokenizer(TOKENIZER, stop), ""
    for count, id in enumerate(TOKENIZER.encode(text), start=1):
        out += detokenizer.push(id)
        if detokenizer.stopped_by is not None:
            return
        held = text[len(out) : count]
        assert not held or any(s.startswith(held) for s in stop)


def test_text_that_may_begin_a_stop_string_waits():
    ids = TOKENIZER.encode("xaab")
    detokenizer = Detokenizer(TOKENIZER, ["aac"])
    assert [detokenizer.push(id) for id in ids] == ["x", "", "", "aab"]


def test_held_text_comes_at_the_end():
    detokenizer = Detokenizer(TOKENIZER, ["abc"])
    assert [detokenizer.push(id) for id in TOKENIZER.encode("ab")] == ["", ""]
    assert detokenizer.flush() == "ab"


def test_half_a_character_at_the_end_becomes_a_replacement():
    detokenizer = Detokenizer(TOKENIZER)
    assert detokenizer.push(TOKENIZER.encode("€")[0]) == ""
    assert detokenizer.flush() == "�"


def test_a_stop_string_before_min_tokens_is_text():
    ids = TOKENIZER.encode("abab")
    assert deltas(ids, ["ab"], min_tokens=3) == (["", "ab", "", ""], "ab")


def test_a_stop_string_may_overlap_one_that_came_before_min_tokens():
    ids = TOKENIZER.encode("aab")[:1] * 3
    assert deltas(ids, ["aa"], min_tokens=3) == (["", "a", ""], "aa")


def test_special_tokens_have_no_text():
    assert deltas([0, *TOKENIZER.encode("a"), 1])[0] == ["", "a", "", ""]
