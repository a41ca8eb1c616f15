"""What is known of a call, HTTP or gRPC, while it is answered: for its log line and its trace."""

from __future__ import annotations

import random
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pythia_bento.telemetry.scoped import Bound

if TYPE_CHECKING:
    from pythia_bento.telemetry.request_timings import Watched

_IDS = random.Random()  # ids are no secrets, and the system's random numbers cost a call each
# What a client may choose: it is written into logs and sent back as a header.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass(slots=True)
class Call:
    """One call of a client and the engine's requests that it led to."""

    request_id: str
    began: float = field(default_factory=time.monotonic)
    caller: str | None = None  # name of the API key
    watched: list[Watched] = field(default_factory=list)

    def log_fields(self) -> dict[str, Any]:
        """What the engine did for it; empty where it was not asked."""
        watched = self.watched
        if not watched:
            return {}
        reasons = {reason for one in watched for reason in one.reasons}
        if not all(one.has_ended for one in watched):
            reasons.add("abort")  # the client left; the engine hears of it presently
        first = min((one.first for one in watched if one.first), default=0.0)
        return {
            "requests": len(watched),
            "prompt_tokens": sum(len(one.request.prompt) for one in watched),
            "cached_tokens": sum(one.num_cached_tokens for one in watched),
            "generated_tokens": sum(one.num_generated for one in watched),
            "finish_reasons": sorted(reasons),
        } | ({"first_output_ms": round((first - self.began) * 1e3, 3)} if first else {})


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """The call that this code works for; None outside of calls."""
    return _current.get()


def working_for(call: Call | None) -> Bound[Call | None]:
    """``current_call`` inside."""
    return Bound(_current, call)


def new_call(request_id: str | None) -> Call:
    """With the client's own id where it may be written into logs, else with a new one."""
    if request_id is None or not _REQUEST_ID.fullmatch(request_id):
        request_id = f"{_IDS.getrandbits(128):032x}"
    return Call(request_id)
