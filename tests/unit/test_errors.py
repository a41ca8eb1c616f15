from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.errors import shown

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
