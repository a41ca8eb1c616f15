"""What is meant by ``--steps``."""

from __future__ import annotations

import pytest

from pythia_bento.catalog import EVEN_STEPS, STEPS, parse
from pythia_bento.checkpoints.steps import MAX_STEPS, steps_of
from pythia_bento.errors import InvalidRequest

SUITE, FIRST, OTHER = parse("pythia-14m"), parse("pythia-1b-v0"), parse("some/copy")


def nobody_asks() -> list[int]:
    raise AssertionError("the suite is known")


def test_all_and_log_are_what_the_suite_has() -> None:
    assert steps_of("all", SUITE, nobody_asks) == list(STEPS)
    assert steps_of("all", FIRST, nobody_asks) == list(EVEN_STEPS)
    powers = [0, *(2**power for power in range(10))]
    late = [1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 143000]
    assert steps_of("log", SUITE, nobody_asks) == [*powers, *late]
    assert steps_of("log", FIRST, nobody_asks) == late


def test_of_anothers_repository_they_are_what_it_has() -> None:
    assert steps_of("all", OTHER, lambda: [7, 3000, 1000]) == [7, 1000, 3000]
    assert steps_of("log", OTHER, lambda: [7, 3000, 1000]) == [1000]
    with pytest.raises(InvalidRequest, match=r"'log': some/copy has none of them"):
        steps_of("log", OTHER, lambda: [7])


def test_lists_and_ranges() -> None:
    assert steps_of("512,0,1,0", SUITE, nobody_asks) == [0, 1, 512]
    assert steps_of("1000:9000:4000", SUITE, nobody_asks) == [1000, 5000, 9000]
    assert steps_of("1000:8999:4000", SUITE, nobody_asks) == [1000, 5000]
    assert steps_of("4:4:1", SUITE, nobody_asks) == [4]
    assert steps_of("5,7", OTHER, nobody_asks) == [5, 7]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ALL",
        "1,",
        "-1",
        "1:2",
        "1:2:3:4",
        "a:b:c",
        "1e3",
        "٣",
        "1\n",
        " 1",
        "1000000000",
        "step1",
    ],
)
def test_what_is_no_expression_is_one_sentence_with_its_limits(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        steps_of(text, SUITE, nobody_asks)
    assert caught.value.param == "steps"
    message = caught.value.message
    assert message.startswith("steps must be all, log, a list as 0,1,512 or FROM:TO:BY as ")
    assert f"of numbers from 0 to 999999999, not {text!r}" in message


@pytest.mark.parametrize("text", ["0:999999999:1", "0:2048:1", ",".join(["1"] * (MAX_STEPS + 1))])
def test_too_many_are_counted_and_not_made(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"steps; the limit is 2048"):
        steps_of(text, OTHER, nobody_asks)


def test_a_hub_with_very_many_branches_is_not_asked_for_each() -> None:
    with pytest.raises(InvalidRequest, match="steps names 20000 steps; the limit is 2048"):
        steps_of("all", OTHER, lambda: range(20_000))


@pytest.mark.parametrize("text", ["5:1:1", "1:5:0"])
def test_a_range_goes_forwards(text: str) -> None:
    with pytest.raises(InvalidRequest, match="FROM must be at most TO, and BY at least 1"):
        steps_of(text, OTHER, nobody_asks)


def test_a_step_that_the_suite_has_not_names_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match="no step 1500; the nearest are step512, step1000, st"):
        steps_of("1000:2000:500", SUITE, nobody_asks)
