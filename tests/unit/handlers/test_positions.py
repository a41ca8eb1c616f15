"""Which positions of a prompt are meant."""

from __future__ import annotations

from typing import Any

import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.handlers.positions import END, of_prompt, positions_of
from pythia_bento.protocol.interventions import Span


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", range(END)),
        ("last", (6,)),
        ("prompt", range(7)),
        ("generated", range(7, END)),
        ((0, 3), (0, 3)),
        ((3, 0, -7, -1, 3), (0, 3, 6)),
        ((8,), (8,)),
        (Span(), range(END)),
        (Span(2), range(2, END)),
        (Span(-2), range(5, END)),
        (Span(None, -2), range(5)),
        (Span(1, 4), range(1, 4)),
        (Span(4, 1), range(4, 4)),
        (Span(-99, 2), range(2)),
        (Span(0, -99), range(0)),
        (Span(9, 99), range(9, 99)),
    ],
)
def test_of_a_prompt_of_seven_tokens_with_two_inputs_behind_it(spec: Any, expected: Any) -> None:
    assert positions_of(spec, 7, 9, "capture[0]") == expected


@pytest.mark.parametrize(
    ("spec", "inputs", "words"),
    [
        (
            (9,),
            9,
            "capture[0].positions holds 9, but the prompt has 7 tokens and at most 2 behind it",
        ),
        ((0, 7), 7, "capture[0].positions holds 7, but the prompt has 7 tokens"),
        ((-8,), 9, "capture[0].positions holds -8, but the prompt has 7 tokens and at most 2"),
    ],
)
def test_a_number_that_names_no_input_is_refused(spec: Any, inputs: int, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        positions_of(spec, 7, inputs, "capture[0]")
    assert caught.value.message.startswith(words)
    assert caught.value.param == "capture[0].positions"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", (0, 1, 2)),
        ("prompt", (0, 1, 2)),
        ("last", (2,)),
        ((-1, 0), (0, 2)),
        (Span(1), (1, 2)),
        (Span(0, 99), (0, 1, 2)),
        (Span(2, 1), ()),
    ],
)
def test_those_that_have_values_of_their_own_are_counted(spec: Any, expected: Any) -> None:
    assert of_prompt(spec, 3, "interventions[1]") == expected


@pytest.mark.parametrize("spec", ["generated", Span(3), (3,)])
def test_what_is_generated_has_none(spec: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^interventions\[1\].positions "):
        of_prompt(spec, 3, "interventions[1]")
