"""The seam between policy and arithmetic."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pythia_bento.engine.executor import EngineConfig

WITHOUT_TORCH = """
import sys
import pythia_bento.engine.engine
sys.exit("torch" in sys.modules)
"""


def test_an_engine_needs_no_torch() -> None:
    assert subprocess.run([sys.executable, "-c", WITHOUT_TORCH]).returncode == 0


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_blocks": 0},
        {"num_blocks": 1, "max_batch_size": 0},
        {"num_blocks": 1, "max_tokens_per_step": 8},
    ],
)
def test_sizes_that_cannot_work_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        EngineConfig(**sizes)
