"""A typed client: sync and async, over HTTP or gRPC, with the same results and the same errors.

Needs neither torch nor bentoml. Errors are the leaves of ``pythia_bento.errors``.
"""

from pythia_bento.client.answer import PartReader
from pythia_bento.client.client import AsyncClient, Client
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

__all__ = [
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
    "Row",
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
]
