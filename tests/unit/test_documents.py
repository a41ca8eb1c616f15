"""The pages on security and faults name tests that are there: no sentence without its test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:e2e|unit|integration|gpu)/[\w/]+(?:\.py)?)(?:::(\w+))?`")


def named(page: str) -> list[tuple[str, str]]:
    return NAMED.findall((ROOT / "docs" / page).read_text())


@pytest.mark.parametrize("page", ["security.md", "faults.md"])
def test_the_tests_that_a_page_names_are_there(page: str) -> None:
    tests = named(page)
    assert len(tests) > 9
    for name, function in tests:
        path = ROOT / "tests" / name
        assert path.exists(), name
        if function:
            assert f"def {function}(" in path.read_text(), (name, function)


def test_every_row_of_what_was_tried_has_a_test() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    tried = page.partition("## What an attacker may try")[2].partition("\n## ")[0]
    rows = [line for line in tried.splitlines() if line.startswith("| ") and "|---" not in line]
    rows = [row for row in rows if not row.startswith("| tried ")]
    assert len(rows) > 25
    for row in rows:
        assert NAMED.search(row) or "`make " in row, row
