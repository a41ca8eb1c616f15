"""What a sweep tells, in the order in which it happens. Plain data.

``Start`` first, ``End`` last. In between, for each checkpoint: ``Checkpoint``, its rows as they
come, and ``Done``; or ``Failed``, perhaps after some of them. Checkpoints come in the order in
which they were asked for, except that those with equal weights follow the first of these.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pythia_bento.errors import PythiaError
from pythia_bento.protocol.errors import error_body
from pythia_bento.protocol.types import Prompt

if TYPE_CHECKING:
    from pythia_bento.protocol.activations import Run  # needs numpy


@dataclass(frozen=True, slots=True)
class SweepItem:
    """A text to ask of each checkpoint; see ``ScoreItem``. ``id`` is repeated by its rows."""

    prompt: Prompt
    continuation: Prompt | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """The request is valid, and this much will be told."""

    key: str  # see ``SweepSpec.key``: equal keys and equal weights, equal rows
    checkpoints: int
    items: int

    def as_dict(self) -> dict[str, Any]:
        """As all transports name it; so of all events."""
        return {"event": "start", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Whose rows follow."""

    index: int  # its place in the request
    model: str  # the id that it was asked for by
    step: int | None  # of training; None where nobody says
    tokens_seen: int | None
    commit: str | None  # 40 hex digits; None for a local directory
    weights: str  # over the names and hashes of its files: equal ones answer alike
    system_fingerprint: str
    same_weights: tuple[str, ...] = ()  # other ids, of this sweep or of the hub's record
    computed: bool = True  # False where the rows are those of a checkpoint before it

    def as_dict(self) -> dict[str, Any]:
        """See ``Start``."""
        return {"event": "checkpoint", **asdict(self), "same_weights": list(self.same_weights)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one checkpoint says of one item; what a task does not tell is None."""

    checkpoint: int  # index
    item: int  # its place in the request
    id: str | None = None  # the item's own
    logprob: float | None = None  # of all tokens together, natural
    num_tokens: int | None = None  # that were scored or generated
    greedy_tokens: int | None = None  # of these the first that greedy decoding takes
    is_greedy: bool | None = None  # whether that is all
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None  # of each, fp32
    ranks: tuple[int, ...] | None = None  # of each: 1 is what greedy decoding takes
    text: str | None = None
    finish_reason: str | None = None
    matched: int | None = None  # ``extract``: the first tokens that greedy decoding gives back
    extractable: bool | None = None  # whether that is all
    share: float | None = None  # of the tokens, that a free-running continuation has in its place
    run: Run | None = None  # ``activations``: what is inside
    error: PythiaError | None = None  # in place of the rest

    def as_dict(self) -> dict[str, Any]:
        """See ``Start``. Only what is told; tokens one by one."""
        told = {name: value for name in _IN_JSON if (value := getattr(self, name)) is not None}
        shown = {"event": "row", "checkpoint": self.checkpoint, "item": self.item, **told}
        if self.token_ids is not None:
            shown["tokens"] = self._tokens(self.token_ids)
        if self.run is not None:
            shown["run"] = self.run.as_dict()
        if self.error is not None:
            shown["error"] = error_body(self.error)["error"]
        return shown

    def _tokens(self, ids: tuple[int, ...]) -> list[dict[str, Any]]:
        columns = {"id": ids, "logprob": self.logprobs, "rank": self.ranks}
        names = [name for name, column in columns.items() if column is not None]
        rows = zip(*(column for column in columns.values() if column is not None), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]


PLAIN = (
    *("id", "logprob", "num_tokens", "greedy_tokens", "is_greedy", "text"),
    *("matched", "extractable", "share"),
)
"""Fields of a row that every transport writes as they are, where they are told."""
_IN_JSON = (*PLAIN, "finish_reason")  # which gRPC has as a number


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where the time of one checkpoint went, from when it was asked to its last row."""

    wait: float = 0.0  # until it had its turn
    load: float = 0.0  # the same where its weights were not on the device
    compute: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """All rows of a checkpoint were told."""

    checkpoint: int
    seconds: Seconds = field(default_factory=Seconds)

    def as_dict(self) -> dict[str, Any]:
        """See ``Start``."""
        return {"event": "done", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Failed:
    """A checkpoint has no more rows, and those that it had are not all."""

    checkpoint: int
    model: str
    error: PythiaError

    def as_dict(self) -> dict[str, Any]:
        """See ``Start``."""
        error = error_body(self.error)["error"]
        return {
            "event": "error",
            "checkpoint": self.checkpoint,
            "model": self.model,
            "error": error,
        }


@dataclass(frozen=True, slots=True)
class End:
    """Checkpoints that are done, and that failed."""

    done: int
    failed: int

    def as_dict(self) -> dict[str, Any]:
        """See ``Start``."""
        return {"event": "end", **asdict(self)}


Event = Start | Checkpoint | Row | Done | Failed | End
