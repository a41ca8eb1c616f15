"""What ``/v1/sweep`` tells, for the description of the API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from pythia_bento.server.openapi.answers import ErrorDetail, Schema


class SweepStart(Schema):
    """The first event."""

    event: Literal["start"]
    key: str
    """Equal keys and equal weights, equal rows."""
    checkpoints: int
    items: int


class SweepCheckpoint(Schema):
    """Whose rows follow."""

    event: Literal["checkpoint"]
    index: int
    model: str
    step: int | None
    """Of training; null where nobody says."""
    tokens_seen: int | None
    """Until then."""
    commit: str | None
    weights: str
    """SHA-256 over the names and hashes of its files: equal ones answer alike."""
    system_fingerprint: str
    same_weights: list[str]
    """Other ids that hold the same weights."""
    computed: bool
    """False where the rows are those of a checkpoint with equal weights before it."""


class SweepToken(Schema):
    """A token of a text."""

    id: int
    logprob: float | None = None
    rank: int | None = None
    """1 is what greedy decoding takes."""


class SweepTensor(Schema):
    """Numbers by rows, the last dimension fastest."""

    shape: list[int]
    data: list[float]


class SweepRun(Schema):
    """What is inside, of the task `activations`."""

    tokens: list[str]
    """Texts of the prompt's tokens, and of what was generated."""
    token_ids: list[int]
    completion: dict[str, Any] | None
    """What was generated, if that was asked for."""
    num_layers: int
    """Of the model."""
    tensors: dict[str, SweepTensor]
    """By the names of sites."""


class SweepRow(Schema):
    """What a checkpoint says of a text: what the task tells, or an error."""

    event: Literal["row"]
    checkpoint: int
    """Its index."""
    item: int
    """The text's place in the request."""
    id: str | None = None
    logprob: float | None = None
    """Of all tokens together."""
    num_tokens: int | None = None
    greedy_tokens: int | None = None
    """Of these the first that greedy decoding takes."""
    is_greedy: bool | None = None
    """Whether that is all."""
    tokens: list[SweepToken] | None = None
    text: str | None = None
    finish_reason: Literal["stop", "length"] | None = None
    matched: int | None = None
    """The first tokens that greedy decoding gives back."""
    extractable: bool | None = None
    """Whether that is all."""
    share: float | None = None
    """Of the tokens, that a free-running continuation has in its place."""
    run: SweepRun | None = None
    error: ErrorDetail | None = None


class SweepSeconds(Schema):
    """Where the time of a checkpoint went."""

    wait: float
    load: float
    compute: float


class SweepDone(Schema):
    """All rows of a checkpoint were told."""

    event: Literal["done"]
    checkpoint: int
    seconds: SweepSeconds


class SweepFailed(Schema):
    """A checkpoint has no more rows. Without `checkpoint` the whole sweep has ended so."""

    event: Literal["error"]
    checkpoint: int | None = None
    model: str | None = None
    error: ErrorDetail


class SweepEnd(Schema):
    """The last event: checkpoints that are done, and that failed."""

    event: Literal["end"]
    done: int
    failed: int


EVENTS: tuple[type[BaseModel], ...] = (
    *(SweepStart, SweepCheckpoint, SweepRow, SweepDone, SweepFailed, SweepEnd),
)
