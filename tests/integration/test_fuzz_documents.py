"""Random config.json, tokenizer.json, pythia.lock and model.yaml are read or refused in a sentence.

``python -m tests.fuzz.files`` does the same by the hundred thousand.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.amounts import amounts
from tests.fuzz import documents
from tests.fuzz.kinds import no_faults

Case = Callable[[random.Random, Path], str]


@amounts(1000, 15_000)
def test_configs(amount: int) -> None:
    no_faults("configs", amount)


@amounts(200, 2500)
def test_tokenizers(amount: int) -> None:
    no_faults("tokenizers", amount)


@amounts(100, 700)
def test_locks(amount: int) -> None:
    no_faults("locks", amount)


@amounts(100, 700)
def test_what_the_store_says(amount: int) -> None:
    no_faults("origins", amount)


@pytest.mark.parametrize(
    "case", [documents.config, documents.tokenizer, documents.lock, documents.origin]
)
def test_cases_that_hypothesis_draws_and_makes_smaller(
    case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("case")

    @settings(max_examples=40, suppress_health_check=[*HealthCheck])
    @given(st.randoms(use_true_random=False))
    def holds(draw: random.Random) -> None:
        assert case(draw, folder) in ("read", "refused")

    holds()
