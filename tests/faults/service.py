"""The real service over kernels that fail on demand: ``bentoml serve tests.faults.service:Pythia``.

The backend is the one that would be used on a processor, but its embedding looks for files in the
directory that FAULTS names before every forward pass: ``oom`` is one pass without memory, for as
many tokens as the file says or more; ``die`` is an error that no engine survives; ``hang`` is a
pass that lasts as long as the file is there; ``nan`` makes what is computed of the token of this id
not a number; ``slow`` holds the seconds that a pass takes longer. ``disk`` is a disk that gives no
byte of a checkpoint as long as the file is there. ``clock`` holds seconds by which the system's
clock is wrong.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from pythia_bento.checkpoints.arriving import Source
from pythia_bento.model import kernels

PLACE = Path(os.environ["FAULTS"])


class FaultyEmbedding:
    """Stands where a backend's ``embed`` stands, the first call of a pass."""

    def __init__(self, embed: Any) -> None:
        self._embed = embed

    def __call__(self, table: Any, token_ids: Any) -> Any:
        result = self._embed(table, token_ids)
        if (PLACE / "die").exists():
            raise ZeroDivisionError("injected")
        while (PLACE / "hang").exists():
            time.sleep(0.05)
        if nan := _value("nan"):
            result[token_ids == int(nan)] = torch.nan
        if slow := _value("slow"):
            time.sleep(float(slow))
        if (oom := _value("oom")) and len(result) >= int(oom):
            raise torch.OutOfMemoryError("injected: out of memory")
        return result


def _value(fault: str) -> str:
    """What its file holds; nothing where there is none, which may be so from one moment on."""
    try:
        return (PLACE / fault).read_text()
    except FileNotFoundError:
        return ""


def _wrong_time() -> float:
    return _time() + float(_value("clock") or 0)


_time = time.time
time.time = _wrong_time


def _faulty(*arguments: Any, **options: Any) -> Any:
    made: Any = _create(*arguments, **options)
    made.embed = FaultyEmbedding(made.embed)
    return made


def _later(source: Source, into: memoryview, start: int) -> memoryview:
    while (PLACE / "disk").exists():
        time.sleep(0.05)
    return _read(source, into, start)


_read = Source.read
Source.read = _later  # type: ignore[method-assign]
_create = kernels.create
kernels.create = _faulty

from pythia_bento.service import Pythia  # noqa: E402

__all__ = ["Pythia"]
