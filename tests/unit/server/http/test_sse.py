"""Events of JSON, and those whose bytes may be cut anywhere."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.server.http.sse import event, in_ascii


@given(st.text())
def test_what_is_not_ascii_is_escaped_and_nothing_else(text: str) -> None:
    one = event({"text": text.encode("utf-8", "ignore").decode()})
    cut = in_ascii(one)
    assert cut.isascii()
    assert json.loads(cut.removeprefix(b"data: ")) == json.loads(one.removeprefix(b"data: "))
    assert cut.count(b"\n") == 2 and cut.endswith(b"\n\n")
    assert (cut is one) == one.isascii()


def test_characters_outside_of_the_first_plane_are_pairs() -> None:
    assert in_ascii(event({"text": "é😀"})) == b'data: {"text":"\\u00e9\\ud83d\\ude00"}\n\n'
