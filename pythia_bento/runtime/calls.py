"""Which requests belong to which call, and what they take from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pythia_bento.engine.params import Request
from pythia_bento.telemetry.calls import CallContext

Calls = Mapping[str, CallContext | None]
"""Calls that requests are made for, by request id."""


def asked_by(call: CallContext | None, request: Request, deadline: float) -> Request:
    """A request in the name of its call's caller."""
    caller = call and call.caller
    return replace(request, caller=caller or request.caller, deadline=deadline)


def by_call(requests: Sequence[Request], calls: Calls | None) -> Iterable[list[Request]]:
    """Groups of the same call, so that what is refused of one is no other's loss."""
    groups: dict[int, list[Request]] = {}
    for request in requests:
        call = calls.get(request.request_id) if calls else None
        groups.setdefault(id(call), []).append(request)
    return groups.values()
