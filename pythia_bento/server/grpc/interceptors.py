"""How layers are put over the methods of this project's services.

Health checks and reflection pass by: they are open to all and would fill the log.

One interceptor of grpc holds all layers and asks for a method's handler once, so that a call costs
one coroutine a layer and its metadata are read once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import grpc
from grpc.aio import ServerInterceptor, ServicerContext

from pythia_bento.errors import InvalidRequest

SERVICES = ("pythia.v1.Pythia", "bentoml.grpc.v1.BentoService")  # the project's own
_METHODS = tuple(f"/{service}/" for service in SERVICES)  # what their methods begin with

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "ServicerContext[Any, Any]"
Behavior: TypeAlias = Callable[[Any, Context], Awaitable[Any]]


@dataclass(slots=True)
class Call:
    """One call of a method."""

    method: str  # "/package.Service/Method"
    context: Context
    metadata: dict[str, str | bytes]  # what the caller sent beside the message

    def text(self, name: str) -> str | None:
        """One of the metadata, unless it is missing or of bytes."""
        value = self.metadata.get(name)
        return value if isinstance(value, str) else None


Run: TypeAlias = Callable[[Call, bytes], Awaitable[Any]]  # what answers a call and its message


class Layer(ABC):
    """Something that is done for each call."""

    @abstractmethod
    def over(self, inner: Run) -> Run:
        """``inner`` and what this does for it."""


class Interceptor(ServerInterceptor):
    """Puts layers, the first of them outermost, over the methods of this project's services."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
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
        if handler is None or not details.method.startswith(_METHODS):
            return handler  # type: ignore[return-value]  # None: there is no such method
        self._handlers[details.method] = layered = self._layered(handler, details.method)
        return layered

    def _layered(self, handler: Handler, method: str) -> Handler:
        run = _innermost(handler)
        for layer in reversed(self._layers):
            run = layer.over(run)

        async def behavior(data: bytes, context: Context) -> Any:
            return await run(Call(method, context, dict(context.invocation_metadata() or ())), data)

        # Its messages stay bytes until all layers have been passed.
        kind: Any = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return cast(Handler, kind(behavior, None, handler.response_serializer))


def _innermost(handler: Handler) -> Run:
    """The method itself; bytes that are no message are the caller's mistake.

    grpc, left to read them, would say UNKNOWN.
    """
    answer = cast(Behavior, handler.unary_stream or handler.unary_unary)
    deserialize = handler.request_deserializer or bytes

    async def run(call: Call, data: bytes) -> Any:
        try:
            request = deserialize(data)
        except Exception:  # protobuf's implementations raise each their own
            message = f"the message is not a request of {call.method[1:]}"
            raise InvalidRequest(message) from None
        return await answer(request, call.context)

    return run
