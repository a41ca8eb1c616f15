from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_bento.client.events import EventReader
from tests.amounts import amounts

# No end of a line, whatever str.splitlines says, and characters of several bytes at any border.
SHARP = "ab :\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\U0001f600"
LINE = st.text(st.sampled_from(SHARP) | st.characters(codec="utf-8", exclude_characters="\r\n"))
OTHERS = ("", "\ufeff: a comment", ": a comment", "id: 7", "data2: no", "retry", " data: no")


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """An answer, and the data of its events."""
    ends = draw(st.sampled_from([["\n", "\r\n"], ["\r"]]))  # CR and LF of two lines would be one
    lines, events = [draw(st.sampled_from(OTHERS))], []
    for event in draw(st.lists(st.lists(LINE, min_size=1), max_size=4)):
        for line in event:
            lines += [
                f"data:{draw(st.sampled_from(['', ' ']))}{line}"
                if line[:1] != " "
                else f"data: {line}"
            ]
            lines += draw(st.lists(st.sampled_from(OTHERS[2:]), max_size=1))
        lines.append("")
        events.append("\n".join(event).encode())
    return "".join(line + draw(st.sampled_from(ends)) for line in lines).encode(), events


@amounts(25, 200)
def test_events_in_whatever_pieces(amount: int) -> None:
    @settings(max_examples=amount)
    @given(streams(), st.data())
    def check(stream: tuple[bytes, list[bytes]], data: st.DataObject) -> None:
        answer, events = stream
        cuts = data.draw(st.lists(st.integers(0, len(answer))))
        borders = [0, *sorted(cuts), len(answer)]
        reader, found = EventReader(), []
        for start, end in pairwise(borders):
            found += reader.read(answer[start:end])
        assert found == events

    check()


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_byte_by_byte(end: bytes) -> None:
    reader, found = EventReader(), []
    for byte in end.join([b"data: a", b"data:  b", b"", b"data", b"", b"", b"data: c", b"", b""]):
        found += reader.read(bytes([byte]))
    assert found == [b"a\n b", b"", b"c"]


def test_an_event_is_told_with_the_end_of_its_empty_line() -> None:
    """And not with the next byte, which may be long in coming: an LF may follow the CR."""
    reader = EventReader()
    assert list(reader.read(b"data: a\r\n\r")) == [b"a"]
    assert list(reader.read(b"\ndata: b\r\r")) == [b"b"]
    assert list(reader.read(b"\n\n")) == []


def test_what_is_unfinished_is_no_event() -> None:
    assert list(EventReader().read(b"data: a\n")) == []


def test_an_empty_piece_between_cr_and_lf() -> None:
    reader = EventReader()
    pieces = [b"data: a\r", b"", b"\ndata: b\r\n", b"\r\n"]
    assert [event for piece in pieces for event in reader.read(piece)] == [b"a\nb"]
