"""What is known of a call, HTTP or gRPC, while it is answered: for its log line and its trace."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pythia_bento.request_watch import Watched


@dataclass(slots=True)
class Call:
    """One call of a client and the engine's requests that it led to."""

    request_id: str
    watched: list[Watched] = field(default_factory=list)


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """The call that this code works for; None outside of calls."""
    return _current.get()
