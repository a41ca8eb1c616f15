"""Some hundreds of schemathesis' cases; ``make fuzz`` runs many thousands."""

from __future__ import annotations

import pytest

from tests.amounts import amounts
from tests.e2e.serving import Server
from tests.fuzz.http import fuzz


@pytest.mark.needs("schemathesis")
@amounts(3, 50)
def test_schemathesis_finds_nothing(guarded: Server, amount: int) -> None:
    result = fuzz(guarded, examples=amount, seed=1)
    assert result.passed, result.report
    assert result.cases > 500, result.report
