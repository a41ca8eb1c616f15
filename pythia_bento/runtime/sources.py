"""A hash of the code that decides an answer's bits: part of ``system_fingerprint``.

It is taken over source text, and so is the same on every machine, whatever compiled it. It takes in
too much rather than too little: a comment may change it, but no change of a bit leaves it alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# What lies outside the folders below and decides bits, as a sampling option's default or the way a
# sum is taken over tokens: raise this where such a thing changes.
NUMERICS_VERSION = 1
DECIDE = ("model", "executor", "engine", "checkpoints/quantize.py")
SUFFIXES = (".py", ".cpp", ".h", ".cu", ".cuh")
KERNELS = Path("model/kernels")
# Each backend's own folder of kernels.
FOLDERS = {"cpu": "cpu", "triton": "gpu", "reference": "reference"}


def sources_hash(backend: str, package: Path = PACKAGE) -> str:
    """12 hex digits over all that decides what ``backend`` computes; other backends have no part.

    Raises KeyError for a backend that does not exist.
    """
    digest = hashlib.sha256(f"{NUMERICS_VERSION}".encode())
    for path in sorted(_sources(FOLDERS[backend], package)):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


def _sources(own: str, package: Path) -> Iterator[Path]:
    others = {package / KERNELS / folder for folder in FOLDERS.values()} - {package / KERNELS / own}
    for part in DECIDE:
        top = package / part
        for path in top.rglob("*") if top.is_dir() else [top]:
            if path.suffix in SUFFIXES and not others.intersection(path.parents):
                yield path
