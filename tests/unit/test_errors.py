"""Sentences about what came from outside."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.errors import CheckpointError, printable, shown


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Ġ é 漢", "Ġ é 漢"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("a\u2028b\x85c\u202ed", r"a\u2028b\x85c\u202ed"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\ud800", r"\ud800"),
    ],
)
def test_nothing_in_a_sentence_ends_its_line_or_steers_a_terminal(text: str, wanted: str) -> None:
    assert printable(text) == wanted
    assert CheckpointError(text).message == wanted


def test_a_sentence_is_not_longer_than_one() -> None:
    assert printable("a" * 10, most=5) == "aa..."
    assert len(CheckpointError("a" * 10**6).message) == 600
    assert shown(10**5000) == "a huge number"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab\\\n")
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text("ab"), inner),
)


@given(VALUES, st.integers(4, 100))
def test_a_value_is_shown_as_its_beginning(value: Any, most: int) -> None:
    whole = repr(value)
    assert shown(value, most) == (whole if len(whole) <= most else f"{whole[: most - 3]}...")


class Unseen:
    def __repr__(self) -> str:
        raise AssertionError("looked at")


def test_no_more_is_looked_at() -> None:
    assert shown(["a" * 10**6, Unseen()]) == "['" + 35 * "a" + "..."
    assert shown({"a": [1] * 30, "b": Unseen()}) == "{'a': [" + "1, " * 10 + "..."


def test_numbers_that_python_does_not_write() -> None:
    assert shown([10**5000]) == "a huge number"
