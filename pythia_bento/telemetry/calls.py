"""What is known of a call, HTTP or gRPC, while it is answered: for its log line and its trace."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace
from typing import Any

from pythia_bento.engine.params import Request
from pythia_bento.telemetry.request_timings import RequestTimings

_IDS = random.Random()  # ids are no secrets, and the system's random numbers cost a call each
# What a client may choose: it is written into logs and sent back as a header.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass(slots=True)
class CallContext:
    """One call of a client and the engine's requests that it led to."""

    request_id: str
    began: float = field(default_factory=time.monotonic)
    caller: str | None = None  # name of the API key; callers take turns when the engine is full
    requests: list[RequestTimings] = field(default_factory=list)
    model: str | None = None  # id of the one that the engine was asked for
    asked_model: str | None = None  # the name by which the client asked for it
    operation: str | None = None  # in OpenTelemetry's words, where the requests do not tell

    def log_fields(self) -> dict[str, Any]:
        """What the engine did for it; empty where it was not asked."""
        requests = self.requests
        if not requests:
            return {}
        reasons = {reason for one in requests for reason in one.reasons}
        if not all(one.has_ended for one in requests):
            reasons.add("abort")  # the client left; the engine hears of it presently
        first = min((one.first for one in requests if one.first), default=0.0)
        return {
            "requests": len(requests),
            "prompt_tokens": sum(len(one.request.prompt) for one in requests),
            "cached_tokens": sum(one.num_cached_tokens for one in requests),
            "generated_tokens": sum(one.num_generated for one in requests),
            "finish_reasons": sorted(reasons),
        } | ({"first_output_ms": round((first - self.began) * 1e3, 3)} if first else {})


_current: ContextVar[CallContext | None] = ContextVar("call", default=None)


def current_call() -> CallContext | None:
    """The call that this code works for; None outside of calls."""
    return _current.get()


def working_for(call: CallContext | None) -> _Scope:
    """``current_call`` inside of a ``with``."""
    return _Scope(call)


class _Scope:
    """Written out because each call passes one: a generator would cost three times as much."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: CallContext | None) -> None:
        self._call = call
        self._token: Token[CallContext | None] | None = None

    def __enter__(self) -> None:
        self._token = _current.set(self._call)

    def __exit__(self, *exception: object) -> None:
        assert self._token is not None
        _current.reset(self._token)


def new_call(request_id: str | None) -> CallContext:
    """With the client's own id where it may be written into logs, else with a new one."""
    if request_id is None or not _REQUEST_ID.fullmatch(request_id):
        request_id = f"{_IDS.getrandbits(128):032x}"
    return CallContext(request_id)


Calls = Mapping[str, CallContext | None]
"""Calls that requests are made for, by request id."""


def asked_by(call: CallContext | None, request: Request, deadline: float) -> Request:
    """A request in the name of its call's caller."""
    caller = call and call.caller
    return replace(request, caller=caller or request.caller, deadline=deadline)


def by_call(
    requests: Sequence[Request], calls: Calls
) -> Iterable[tuple[CallContext | None, list[Request]]]:
    """Requests of the same call together, so that what is refused of one is no other's loss."""
    groups: dict[int, tuple[CallContext | None, list[Request]]] = {}
    for request in requests:
        call = calls[request.request_id]
        groups.setdefault(id(call), (call, []))[1].append(request)
    return groups.values()
