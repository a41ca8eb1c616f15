"""Whatever ``config.json`` is accepted is computed as transformers does, on every backend."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.config_parity import TOLERANCE, accepted, differences, write

ROUNDS = 12


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_what_is_read_gives_the_numbers_of_transformers(seed: int, tmp_path: Path) -> None:
    raw = accepted(random.Random(seed))
    write(raw, tmp_path)
    for name, difference in differences(tmp_path).items():
        assert difference <= TOLERANCE, (name, raw)
