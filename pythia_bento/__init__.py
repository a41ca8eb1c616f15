"""Serve EleutherAI's Pythia language models in 8 bits with BentoML, or load one: ``load``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """``load`` and ``Model`` of ``pythia_bento.local``, which brings torch, for who asks."""
    if name in ("Model", "load"):
        return getattr(import_module("pythia_bento.local"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
