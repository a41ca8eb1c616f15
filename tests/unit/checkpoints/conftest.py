"""One small fp16 checkpoint that the tests here copy and damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.models import random_checkpoint

Edit = Callable[[dict[str, Tensor]], dict[str, Tensor] | None]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, two heads of 32, 300 vocabulary rows, fp16."""
    return random_checkpoint(tmp_path_factory.mktemp("original"), heads=2)


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """The same in a directory that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def edit(directory: Path, change: Edit) -> None:
    """Rewrite model.safetensors; ``change`` alters the tensors in place or returns new ones."""
    tensors = load_file(directory / "model.safetensors")
    tensors = change(tensors) or tensors
    (directory / "model.safetensors").unlink()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
