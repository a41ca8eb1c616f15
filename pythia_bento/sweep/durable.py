"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def move(partial: Path, path: Path) -> None:
    """What is under the file's name is on the disk, whatever ends this machine."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
