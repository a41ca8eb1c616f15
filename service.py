"""``bentoml serve`` and ``bentoml build`` in this directory find the service by this name."""

from __future__ import annotations

from pythia_bento.service import Pythia

__all__ = ["Pythia"]
