"""What is done for each call, outermost first: tracing, log, metrics, errors, turns, API keys."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import Any

import grpc
from grpc.aio import AbortError, InternalError
from opentelemetry import context, propagate
from opentelemetry.trace import SpanKind, Tracer, set_span_in_context, use_span
from typing_extensions import override

from pythia_bento.errors import PythiaError
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.call_log import log_call
from pythia_bento.server.grpc.call import Call
from pythia_bento.server.grpc.door import Door
from pythia_bento.server.grpc.errors import grpc_status
from pythia_bento.server.grpc.held_calls import HeldCalls
from pythia_bento.server.grpc.interceptors import Layer, Run
from pythia_bento.server.grpc.metrics import GrpcMetrics
from pythia_bento.server.spans import Uncollected, trace_call
from pythia_bento.telemetry.calls import CallContext, current_call, new_call, working_for

REQUEST_ID = "x-request-id"
# Refused unread while the engine is full.
GENERATING = tuple(
    f"/pythia.v1.Pythia/{name}" for name in ("Generate", "Sweep", "Activations", "Patch")
)

WATCH = "/grpc.health.v1.Health/Watch"

logger = logging.getLogger(__name__)
# A client whose deadline passes ends its call itself, and the server, whose clock for it began when
# the call arrived, hears of that some milliseconds before its own deadline.
DEADLINE_SLACK = 0.1


class Tracing(Layer):
    """A span for each call, child of the span that the client names (W3C traceparent)."""

    def __init__(self, tracer: Tracer, uncollected: Uncollected | None) -> None:
        self._tracer = tracer
        self._uncollected = uncollected

    @override
    def over(self, inner: Run) -> Run:
        recorded, spans = self._recorded(inner), self._uncollected
        if spans is None:
            return recorded

        async def run(call: Call) -> Any:
            if spans.is_linked(call.metadata):
                return await recorded(call)
            token = context.attach(set_span_in_context(spans.make()))
            try:
                return await inner(call)
            finally:
                context.detach(token)

        return run

    def _recorded(self, inner: Run) -> Run:
        async def run(call: Call) -> Any:
            span = self._tracer.start_span(
                call.method[1:],
                context=propagate.extract(call.metadata),
                kind=SpanKind.SERVER,
                attributes=_attributes(call.method),
            )
            code = grpc.StatusCode.OK
            with use_span(span, end_on_exit=True):
                try:
                    return await inner(call)
                except BaseException as error:
                    code = _code(error, call)
                    raise
                finally:
                    span.set_attribute("rpc.grpc.status_code", code.value[0])

        return run


class Records(Layer):
    """Knows a call while it is answered: its log line, metrics, and the engine's spans."""

    def __init__(self, metrics: GrpcMetrics, tracer: Tracer) -> None:
        self._metrics = metrics
        self._tracer = tracer

    @override
    def over(self, inner: Run) -> Run:
        async def run(call: Call) -> Any:
            # Of a call that has ended, reading it would end the process.
            peer = str(call.context.peer()).partition(":")[2]
            self._metrics.begin(call.method)
            code = grpc.StatusCode.OK
            known = new_call(call.text(REQUEST_ID))
            call.context.set_trailing_metadata(((REQUEST_ID, known.request_id),))
            try:
                with working_for(known):
                    return await inner(call)
            except BaseException as error:
                code = _code(error, call)
                raise
            finally:
                trace_call(self._tracer, known)
                seconds = time.monotonic() - known.began
                # Later: the answer is not sent yet, and writing a line takes longer than all here.
                loop = asyncio.get_running_loop()
                loop.call_soon(self._ended, known, peer, call.method, code, seconds)

        return run

    def _ended(
        self, known: CallContext, peer: str, method: str, code: grpc.StatusCode, seconds: float
    ) -> None:
        self._metrics.end(method, code.name, seconds)
        log_call(known, peer, "", method, code.name, "grpc")


class Errors(Layer):
    """Translates the exception tree; what is not in it is logged and told without details."""

    @override
    def over(self, inner: Run) -> Run:
        async def run(call: Call) -> Any:
            try:
                return await inner(call)
            except PythiaError as error:
                await _abort(call, error)
            except (AbortError, asyncio.CancelledError, InternalError):
                raise  # the last is of a client that left while something was sent to it
            except Exception:
                logger.exception("%s failed", call.method)
                await _abort(call, PythiaError("the server failed; its log says how"))

        return run


class ByTurns(Layer):
    """Callers have calls come in by turns; those without a key, where one is asked for, are one."""

    def __init__(self, door: Door, access: AccessControl) -> None:
        self._door, self._access = door, access

    @override
    def over(self, inner: Run) -> Run:
        async def run(call: Call) -> Any:
            caller = self._access.caller_of(call.text("authorization"))
            await self._door.enter(call.context.peer() if caller is None else caller)
            return await inner(call)

        return run


class ApiKeys(Layer):
    """Who may ask, by the metadata ``authorization: Bearer <key>``."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access

    @override
    def over(self, inner: Run) -> Run:
        async def run(call: Call) -> Any:
            generates = call.method in GENERATING
            key = call.lone_text("authorization")
            with self._access.enter(key, generates=generates):
                return await inner(call)

        return run


class Watches(Layer):
    """Those who watch the server's health stay until it ends, which waits for nobody else."""

    def __init__(self, watchers: HeldCalls) -> None:
        self._watchers = watchers

    @override
    def over(self, inner: Run) -> Run:
        async def run(call: Call) -> Any:
            if call.method != WATCH:
                return await inner(call)
            return await self._watchers.hold(lambda: inner(call))

        return run


@functools.cache  # of the methods there are
def _attributes(method: str) -> dict[str, str]:
    """What a span says of a method."""
    service, _, name = method[1:].partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


async def _abort(call: Call, error: PythiaError) -> None:
    status = grpc_status(error)
    known = current_call()
    named = ((REQUEST_ID, known.request_id),) if known else ()
    try:
        await call.context.abort(status.code, status.details, (*status.trailing_metadata, *named))
    except AbortError as raised:
        asyncio.get_running_loop().call_soon(_forget, raised, error)
        raise


def _forget(*errors: BaseException) -> None:
    """Once the call has ended: grpc, or an answer, keeps them with the call that they lead back to.

    The call, some 20 KB, would be held until Python looks for cycles.
    """
    for error in errors:
        error.__traceback__ = error.__context__ = None


def _code(error: BaseException, call: Call) -> grpc.StatusCode:
    """How a call ended that did not end well."""
    if isinstance(error, AbortError):
        return call.context.code()
    remaining = call.context.time_remaining()
    is_late = remaining is not None and remaining <= DEADLINE_SLACK
    return grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
