"""Configs that are accepted, computed, and compared with transformers."""

from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path

from transformers.utils import logging as theirs

from tests.config_parity import TOLERANCE, accepted, differences, write

theirs.disable_progress_bar()
theirs.set_verbosity_error()
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def computed(draw: random.Random, folder: Path) -> str:
    """The same log-probabilities on every backend."""
    path = folder / "model"
    shutil.rmtree(path, ignore_errors=True)
    raw = accepted(draw)
    write(raw, path)
    found = differences(path)
    assert all(difference <= TOLERANCE for difference in found.values()), (found, raw)
    return "equal"
