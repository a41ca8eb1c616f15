from __future__ import annotations

import pytest

from pythia_bento.client import Delta, Output, Part, Summary, Timings, Token
from pythia_bento.protocol.types import joined

SUMMARY = Summary("toy", "print", 1, 0, 3, Timings(0, 0, 0, 0))


def test_deltas_of_an_index_are_its_output() -> None:
    first, second = Token(1, "a", -0.5), Token(2, "b", -1.5)
    generation = joined(
        [
            Part((Delta(1, "x", (7,)), Delta(0, "a", (1,), (first,))), prompt_tokens=(second,)),
            Part((Delta(0, "b", (2,), (second,), "stop", "."),)),
            Part((Delta(1, "", (), (), "length"),), summary=SUMMARY),
        ]
    )
    assert generation.outputs == [
        Output("ab", [1, 2], [first, second], "stop", "."),
        Output("x", [7], [], "length", None),
    ]
    assert generation.text == "ab"
    assert (generation.prompt_tokens, generation.summary) == ((second,), SUMMARY)


def test_an_answer_without_its_end_is_none() -> None:
    with pytest.raises(ValueError, match="the last part is missing"):
        joined([Part((Delta(0, "a", (1,)),))])
