"""What every call passes on its way in: tracing, log and metrics, errors, API keys, parsing.

They hold for the services of this project. Health checks and reflection pass by: they are open to
all and would fill the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import grpc
from grpc.aio import AbortError, ServerInterceptor, ServicerContext
from opentelemetry import propagate
from opentelemetry.trace import SpanKind, Tracer

from pythia_bento.api.access import AccessControl, note_caller
from pythia_bento.api.access_log import log_call
from pythia_bento.api.grpc.errors import grpc_status
from pythia_bento.api.grpc.metrics import GrpcMetrics
from pythia_bento.api.tracing import trace_call
from pythia_bento.calls import Call as Known
from pythia_bento.calls import current_call, new_call, working_for
from pythia_bento.errors import InvalidRequest, PythiaError

REQUEST_ID = "x-request-id"
OURS = ("/pythia.v1.Pythia/", "/bentoml.grpc.v1.BentoService/")

logger = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behavior: TypeAlias = Callable[[Any, ServicerContext[Any, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a method."""

    method: str  # "/package.Service/Method"
    context: ServicerContext[Any, Any]

    def metadata(self) -> dict[str, str | bytes]:
        """What the caller sent beside the message."""
        return dict(self.context.invocation_metadata() or ())

    @property
    def peer(self) -> str:
        """Host and port of the caller."""
        return str(self.context.peer()).partition(":")[2]


class Interceptor(ServerInterceptor, ABC):
    """Changes how the methods of this project's services are run."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}  # by method: nothing in them is of one call

    @abstractmethod
    def wrapped(self, handler: Handler, method: str) -> Handler:
        """The handler to use in place of ``handler``."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Called by grpc for each call."""
        if known := self._handlers.get(details.method):
            return known
        handler = await continuation(details)
        if handler is None or not details.method.startswith(OURS):
            return handler  # type: ignore[return-value]  # None: there is no such method
        self._handlers[details.method] = wrapped = self.wrapped(handler, details.method)
        return wrapped


class Around(Interceptor):
    """Runs methods inside a context manager."""

    @abstractmethod
    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """What happens before and after."""

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """See Interceptor."""
        inner = _behavior(handler)

        async def behavior(request: Any, context: ServicerContext[Any, Any]) -> Any:
            async with self.around(Call(method, context)):
                return await inner(request, context)

        return _replaced(handler, behavior, handler.request_deserializer)


class Tracing(Around):
    """A span for each call, child of the span that the client names (W3C traceparent)."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """See Interceptor."""
        service, _, method = call.method[1:].partition("/")
        with self._tracer.start_as_current_span(
            call.method[1:],
            context=propagate.extract(call.metadata()),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        ) as span:
            code = grpc.StatusCode.OK
            try:
                yield
            except BaseException as error:
                code = _code(error, call)
                raise
            finally:
                span.set_attribute("rpc.grpc.status_code", code.value[0])


class Records(Around):
    """Knows a call while it is answered: its log line, metrics, and the engine's spans."""

    def __init__(self, metrics: GrpcMetrics, tracer: Tracer) -> None:
        super().__init__()
        self._metrics = metrics
        self._tracer = tracer

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """See Around."""
        started = time.perf_counter()
        self._metrics.begin(call.method)
        code = grpc.StatusCode.OK
        request_id = call.metadata().get(REQUEST_ID)
        known = new_call(request_id if isinstance(request_id, str) else None)
        call.context.set_trailing_metadata(((REQUEST_ID, known.request_id),))
        try:
            with working_for(known):
                yield
        except BaseException as error:
            code = _code(error, call)
            raise
        finally:
            trace_call(self._tracer, known)
            seconds = time.perf_counter() - started
            self._metrics.end(call.method, code.name, seconds)
            # Writing it takes longer than all else here, and the answer is not sent yet.
            asyncio.get_running_loop().call_soon(_log, known, call, code)


class Errors(Around):
    """Translates the exception tree; what is not in it is logged and told without details."""

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """See Interceptor."""
        try:
            yield
        except PythiaError as error:
            await _abort(call, error)
        except (AbortError, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("%s failed", call.method)
            await _abort(call, PythiaError("the server failed; its log says how"))


class ApiKeys(Around):
    """Who may ask, by the metadata ``authorization: Bearer <key>``."""

    def __init__(self, access: AccessControl) -> None:
        super().__init__()
        self._access = access

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """See Interceptor."""
        key = call.metadata().get("authorization")
        with self._access.enter(key if isinstance(key, str) else None) as caller:
            note_caller(caller)
            yield


class Messages(Interceptor):
    """Innermost: bytes that are no message are the caller's mistake; grpc would say UNKNOWN."""

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """See Interceptor."""
        inner, deserialize = _behavior(handler), handler.request_deserializer or bytes

        async def behavior(data: bytes, context: ServicerContext[Any, Any]) -> Any:
            try:
                request = deserialize(data)
            except Exception:  # protobuf's implementations raise each their own
                message = f"the message is not a request of {method[1:]}"
                raise InvalidRequest(message) from None
            return await inner(request, context)

        return _replaced(handler, behavior, None)


def _log(known: Known, call: Call, code: grpc.StatusCode) -> None:
    log_call(known, call.peer, "", call.method, code.name, "grpc")


async def _abort(call: Call, error: PythiaError) -> None:
    status = grpc_status(error)
    known = current_call()
    named = ((REQUEST_ID, known.request_id),) if known else ()
    await call.context.abort(status.code, status.details, (*status.trailing_metadata, *named))


def _code(error: BaseException, call: Call) -> grpc.StatusCode:
    """How a call ended that did not end well."""
    if isinstance(error, AbortError):
        return call.context.code()
    remaining = call.context.time_remaining()
    is_late = remaining is not None and remaining <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED


def _behavior(handler: Handler) -> Behavior:
    return cast(Behavior, handler.unary_stream or handler.unary_unary)


def _replaced(handler: Handler, behavior: Behavior, deserializer: Any) -> Handler:
    """The same handler with another behavior; our methods take one request each."""
    kind: Any = (
        grpc.unary_stream_rpc_method_handler
        if handler.response_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    return cast(Handler, kind(behavior, deserializer, handler.response_serializer))
