"""A typed client: sync and async, over HTTP or gRPC, with the same results and the same errors.

Needs neither torch nor bentoml, and numpy for activations alone. Errors are the leaves of
``pythia_bento.errors``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pythia_bento.client.answer import PartReader
from pythia_bento.client.async_client import AsyncClient
from pythia_bento.client.client import Client
from pythia_bento.client.options import SamplingOptions, StructuredOutputs, Tls
from pythia_bento.protocol.sweep import (
    Checkpoint,
    Done,
    End,
    Event,
    Failed,
    Row,
    Seconds,
    Start,
    SweepItem,
)
from pythia_bento.protocol.types import (
    Delta,
    Generation,
    Info,
    Limits,
    ModelState,
    Output,
    Part,
    Score,
    ScoreItem,
    Summary,
    Timings,
    Token,
    TopToken,
)

if TYPE_CHECKING:
    from pythia_bento.client.patches import PatchGrid
    from pythia_bento.protocol.activations import Activations, Run, open_activations

__all__ = [
    "Activations",
    "AsyncClient",
    "Checkpoint",
    "Client",
    "Delta",
    "Done",
    "End",
    "Event",
    "Failed",
    "Generation",
    "Info",
    "Limits",
    "ModelState",
    "Output",
    "Part",
    "PartReader",
    "PatchGrid",
    "Row",
    "Run",
    "SamplingOptions",
    "Score",
    "ScoreItem",
    "Seconds",
    "Start",
    "StructuredOutputs",
    "Summary",
    "SweepItem",
    "Timings",
    "Tls",
    "Token",
    "TopToken",
    "open_activations",
]

_WITH_NUMPY = {
    "Activations": "protocol.activations",
    "PatchGrid": "client.patches",
    "Run": "protocol.activations",
    "open_activations": "protocol.activations",
}


def __getattr__(name: str) -> Any:
    """Those that need numpy, when somebody asks for them."""
    if name in _WITH_NUMPY:
        return getattr(import_module(f"pythia_bento.{_WITH_NUMPY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
