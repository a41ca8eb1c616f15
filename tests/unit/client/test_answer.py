"""What ``generate_stream`` yields, in whatever pieces it comes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_bento.client import PartReader
from pythia_bento.errors import EngineUnavailable, Overloaded
from pythia_bento.protocol.errors import error_body
from pythia_bento.server.http.sse import DONE, event, in_ascii

TEXTS = ["Once", " upón", " 漢😀", "\n\ndata: [DONE]"]


def delta(text: str) -> dict[str, Any]:
    ends = {"finish_reason": None, "stop_reason": None}
    return {"deltas": [{"index": 0, "text": text, "token_ids": [5], **ends}]}


ANSWER = b"".join([*(in_ascii(event(delta(text))) for text in TEXTS), DONE]).decode()


@given(st.lists(st.integers(0, len(ANSWER))))
def test_parts_do_not_depend_on_pieces(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(ANSWER)]
    reader = PartReader()
    pieces = [ANSWER[start:end] for start, end in pairwise(places)]
    parts = [part for piece in pieces for part in reader.read(piece)]
    assert [part.deltas[0].text for part in parts] == TEXTS
    reader.check_end()


def test_an_answer_without_its_end_broke_off() -> None:
    reader = PartReader()
    assert len(list(reader.read(ANSWER.removesuffix(DONE.decode())))) == len(TEXTS)
    with pytest.raises(EngineUnavailable, match="broke off"):
        reader.check_end()


def test_an_event_may_tell_of_an_error() -> None:
    with pytest.raises(Overloaded, match="try again"):
        list(PartReader().read(event(error_body(Overloaded("try again"))).decode()))
