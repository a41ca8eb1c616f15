"""Some thousands of schemathesis' cases; ``make fuzz`` runs many thousands."""

from __future__ import annotations

import pytest

from tests.e2e.serving import Server
from tests.fuzz.http import fuzz


@pytest.mark.needs("schemathesis")
@pytest.mark.long
def test_schemathesis_finds_nothing(guarded: Server) -> None:
    result = fuzz(guarded, examples=30, seed=1)
    assert result.passed, result.report
    assert result.cases > 500, result.report
