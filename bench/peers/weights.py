"""Reads a random checkpoint with numpy alone, for peers whose environment has no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open


def read(directory: Path) -> tuple[dict[str, Any], Callable[[str], NDArray[np.float16]]]:
    """The config, and a function that reads a tensor by its name without ``gpt_neox.``."""
    config = json.loads((directory / "config.json").read_text())
    files = json.loads((directory / "model.safetensors.index.json").read_text())["weight_map"]

    def tensor(name: str) -> NDArray[np.float16]:
        full = name if name in files else f"gpt_neox.{name}"
        with safe_open(directory / files[full], "numpy") as file:
            array: NDArray[np.float16] = file.get_tensor(full)
        return array

    return config, tensor


def tokens(directory: Path, rows: int) -> list[str]:
    """The vocabulary by id, with names for the rows that have no token."""
    vocab = json.loads((directory / "tokenizer.json").read_text())["model"]["vocab"]
    known = sorted(vocab, key=vocab.__getitem__)
    return known + [f"[unused{id}]" for id in range(len(known), rows)]


def split_qkv(array: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows [head][q, k, v][head_dim] to [q, k, v][head][head_dim]."""
    parts = array.reshape(heads, 3, -1, *array.shape[1:])
    return np.ascontiguousarray(parts.swapaxes(0, 1).reshape(array.shape))
