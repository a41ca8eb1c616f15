"""Framings of HTTP that a seed makes up; ``python -m tests.fuzz.framing`` tries many more."""

from __future__ import annotations

import pytest

from tests.e2e.serving import Server
from tests.fuzz.framing import Answer, faults, fuzz
from tests.fuzz.framings import FAULTS, TOLERATED, Framing, Message, framing


def test_framings_find_nothing(server: Server) -> None:
    result = fuzz(server, count=300, seed=1)
    assert not result.faults, "\n".join(result.faults)
    assert result.counts["connections"] == 300
    assert min(result.counts["sound, closed"], result.counts["200"], result.counts["400"]) > 50


@pytest.mark.long
def test_more_framings_find_nothing(server: Server) -> None:
    result = fuzz(server, count=1000, seed=2)
    assert not result.faults, "\n".join(result.faults)


def test_every_fault_is_made_and_each_number_is_the_same_again() -> None:
    made = [framing(3, number) for number in range(500)]
    assert {one.fault for one in made} == {"", *FAULTS} > TOLERATED
    assert [one.pieces for one in made] == [framing(3, number).pieces for number in range(500)]


OK = [Answer(200, "0"), Answer(404, "1")]


@pytest.mark.parametrize(
    ("fault", "answers", "closed", "found"),
    [
        ("", OK, True, ""),
        ("", OK, False, "2 of 2"),
        ("", OK[:1], True, "1 of 2"),
        ("upgrade", [OK[0], Answer(400, "")], True, ""),
        ("upgrade", OK, False, ""),
        ("host missing", OK[:1], True, ""),
        ("host missing", OK, True, "as if it were not"),
        ("upgrade", [OK[0], Answer(200, "")], True, "of no request"),
        ("upgrade", [Answer(400, ""), OK[0]], True, "of no request"),
        ("upgrade", [OK[1]], True, "in order"),
        ("upgrade", [OK[0], Answer(200, "inner")], True, "inside of another"),
        ("upgrade", [OK[0], Answer(500, "")], True, "500"),
    ],
)
def test_the_oracle_sees_what_is_wrong(
    fault: str, answers: list[Answer], closed: bool, found: str
) -> None:
    messages = [Message("GET", "/", 0, []), Message("GET", "/", 1, [], fault=fault)]
    wrong = "\n".join(faults(Framing(messages), answers, closed))
    assert found in wrong and bool(found) == bool(wrong)
