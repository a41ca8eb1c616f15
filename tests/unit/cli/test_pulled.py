"""Revisions in few words."""

from __future__ import annotations

import pytest

from pythia_bento.catalog import STEPS, parse
from pythia_bento.cli.pulled import described

NAME = parse("pythia-14m")


@pytest.mark.parametrize(
    ("revisions", "words"),
    [
        (["main"], "main"),
        (["step0", "step1", "step2", "step4", "step512", "step1000"], "step 0-4, 512, 1000"),
        (["step3000", "step1000", "main"], "step 1000, 3000, main"),
        (["step5", "a" * 40], "step 5, aaaaaaaaaaaa"),
        ([f"step{step}" for step in STEPS], "step 0-143000"),
    ],
)
def test_steps_that_follow_each_other_are_one(revisions: list[str], words: str) -> None:
    assert described([NAME.at(revision) for revision in revisions]) == words
