"""How layers are put over methods, and when a call's message is read.

Health checks and reflection have layers of their own: they are open to all and would fill the log.

One interceptor of grpc holds all layers and asks for a method's handler once, so that a call costs
one coroutine a layer and its metadata are read once. To grpc every method is one whose client sends
a stream: it would wait for the message of any other before it shows the call to anybody.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import grpc
from grpc.aio import ServerInterceptor, ServicerContext

from pythia_bento.errors import InvalidRequest
from pythia_bento.server.grpc.held_calls import HeldCalls

SERVICES = ("pythia.v1.Pythia", "bentoml.grpc.v1.BentoService")  # the project's own
_METHODS = tuple(f"/{service}/" for service in SERVICES)  # what their methods begin with

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "ServicerContext[Any, Any]"
Behavior: TypeAlias = Callable[[Any, Context], Any]

# A call that its client cancels looks like one without a message until grpc says so.
CANCELLED_SECONDS = 0.05


@dataclass(slots=True)
class Call:
    """One call of a method."""

    method: str  # "/package.Service/Method"
    context: Context
    metadata: dict[str, str | bytes]  # what the caller sent beside the message
    repeated: frozenset[str] = frozenset()  # names of metadata that came several times

    @classmethod
    def of(cls, method: str, context: Context) -> Call:
        """Reads the metadata, which are made anew each time they are asked for."""
        pairs: Any = context.invocation_metadata() or ()
        metadata = dict(pairs)
        if len(metadata) == len(pairs):
            return cls(method, context, metadata)
        names = [name for name, _ in pairs]
        return cls(method, context, metadata, frozenset(n for n in names if names.count(n) > 1))

    def text(self, name: str) -> str | None:
        """One of the metadata, unless it is missing or of bytes."""
        value = self.metadata.get(name)
        return value if isinstance(value, str) else None

    def lone_text(self, name: str) -> str | None:
        """``text`` of what may come once: readers would differ in which one counts."""
        if name in self.repeated:
            raise InvalidRequest(f"the metadata have {name} several times", param=name)
        return self.text(name)


Run: TypeAlias = Callable[[Call], Awaitable[Any]]  # what reads a call's message and answers it


class Layer(ABC):
    """Something that is done for each call."""

    @abstractmethod
    def over(self, inner: Run) -> Run:
        """``inner`` and what this does for it."""


class Interceptor(ServerInterceptor):
    """Puts layers, the first of them outermost, over the methods of all services."""

    def __init__(
        self, layers: Sequence[Layer], others: Sequence[Layer], arrivals: HeldCalls
    ) -> None:
        """``others`` are for methods that are not of this project's services.

        ``arrivals`` are the calls whose message is on its way.
        """
        self._layers = layers
        self._others = others
        self._arrivals = arrivals
        self._handlers: dict[str, Handler] = {}  # by method: nothing in them is of one call

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Called by grpc for each call."""
        if known := self._handlers.get(details.method):
            return known
        handler = await continuation(details)
        if handler is None:
            return handler  # type: ignore[return-value]  # there is no such method
        self._handlers[details.method] = layered = self._layered(handler, details.method)
        return layered

    def _layered(self, handler: Handler, method: str) -> Handler:
        run = _innermost(handler, self._arrivals)
        for layer in reversed(self._layers if method.startswith(_METHODS) else self._others):
            run = layer.over(run)

        async def behavior(_: object, context: Context) -> Any:
            return await run(Call.of(method, context))

        # Its messages stay bytes until all layers have been passed.
        kind: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return cast(Handler, kind(behavior, None, handler.response_serializer))


def _innermost(handler: Handler, arrivals: HeldCalls) -> Run:
    """The method itself, and what it is asked."""
    answer = cast(
        Behavior,
        handler.unary_unary
        or handler.unary_stream
        or handler.stream_unary
        or handler.stream_stream,
    )
    deserialize = handler.request_deserializer or bytes

    async def messages(call: Call) -> AsyncIterator[Any]:
        while (data := await arrivals.hold(call.context.read)) is not grpc.aio.EOF:
            yield _message(call, deserialize, data)

    async def run(call: Call) -> Any:
        data = await arrivals.hold(call.context.read)
        if data is grpc.aio.EOF:
            await asyncio.sleep(CANCELLED_SECONDS)
            raise InvalidRequest("the call has no message")
        return await answer(_message(call, deserialize, data), call.context)

    async def run_stream(call: Call) -> None:
        async for response in answer(messages(call), call.context):
            await call.context.write(response)

    return run_stream if handler.request_streaming else run


def _message(call: Call, deserialize: Callable[[bytes], Any], data: bytes) -> Any:
    """Bytes that are no message are the caller's mistake; grpc, left to read them, says UNKNOWN."""
    try:
        return deserialize(data)
    except Exception:  # protobuf's implementations raise each their own
        message = f"the message is not a request of {call.method[1:]}"
        raise InvalidRequest(message) from None
