"""Many more configs than ``test_config_parity.py`` are computed as transformers does."""

from __future__ import annotations

import pytest

from tests.fuzz.kinds import no_faults


@pytest.mark.long
def test_computed_configs() -> None:
    no_faults("computed", 200, rare="equal", common="equal")
