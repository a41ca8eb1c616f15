"""Hubs that tell random stories change nothing but a pull's own places, and stop no later pull."""

from __future__ import annotations

from tests.amounts import amounts
from tests.fuzz.kinds import no_faults


@amounts(8, 120)
def test_hub_stories(amount: int) -> None:
    no_faults("hubs", amount, common="pulled")
