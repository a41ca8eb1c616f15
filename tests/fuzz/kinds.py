"""For tests: so many random cases of a kind, none of which may be a fault."""

from __future__ import annotations

from tests.fuzz.files import run


def no_faults(kind: str, count: int, rare: str = "refused", common: str = "read") -> None:
    """Run the first cases; both outcomes must come about, or they tell nothing."""
    result = run(kind, 0, count)
    assert not result.faults, "\n".join(result.faults)
    assert sum(result.outcomes.values()) == count
    assert result.outcomes[rare] and result.outcomes[common], result.outcomes
