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


def together(ids, stop, sizes, *, skip=True):
    """Pushed in runs of these sizes, one by one where that is asked for."""
    detokenizer = Detokenizer(TOKENIZER, stop, skip_special_tokens=skip)
    out, left = "", list(ids)
    while left:
        size = sizes[len(left) % len(sizes)]
        run, left = left[:size], left[size:]
        text = detokenizer.push_all(run)
        for id in run if text is None else ():
            out += detokenizer.push(id)
            if detokenizer.stopped_by is not None:
                return out, detokenizer.stopped_by
        out += text or ""
    return out + detokenizer.flush(), detokenizer.stopped_by


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(IDS, STOPS, SIZES, st.booleans())
def test_many_at_once_are_as_many_one_by_one(ids, stop, sizes, skip):
    assert together(ids, stop, sizes, skip=skip) == together(ids, stop, [1], skip=skip)


@given(TEXT, STOPS, SIZES)
def test_stops_in_what_is_pushed_at_once(text, stop, sizes):
    assert together(TOKENIZER.encode(text), stop, sizes) == first_stop(text, stop)


@given(TEXT, STOPS, SIZES)
def test_pushing_many_holds_back_as_much(text, stop, sizes):
    """Each run brings what its tokens would have brought one by one, or None and no change."""
    runs, alone = Detokenizer(TOKENIZER, stop), Detokenizer(TOKENIZER, stop)
    left = TOKENIZER.encode(text)
    while left:
        run, left = left[: sizes[0]], left[sizes[0] :]
        found, expected = runs.push_all(run), "".join(map(alone.push, run))
        if found is None:
            found = "".join(map(runs.push, run))
        assert found == expected
        assert runs.stopped_by == alone.stopped_by
        if runs.stopped_by is not None:
            return
