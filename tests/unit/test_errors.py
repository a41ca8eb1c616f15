"""Sentences about what came from outside."""

from __future__ import annotations

import pytest

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
