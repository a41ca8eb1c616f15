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
from typing import Any, TypeAlias, cast

import grpc
from grpc.aio import ServerInterceptor

from pythia_bento.errors import InvalidRequest
from pythia_bento.server.grpc.call import Call, Context
from pythia_bento.server.grpc.intake import Intake

SERVICES = ("pythia.v1.Pythia", "bentoml.grpc.v1.BentoService")  # the project's own
_METHODS = tuple(f"/{service}/" for service in SERVICES)  # what their methods begin with

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behavior: TypeAlias = Callable[[Any, Context], Any]

# A call that its client cancels looks like one without a message until grpc says so.
CANCELLED_SECONDS = 0.05

Run: TypeAlias = Callable[[Call], Awaitable[Any]]  # what reads a call's message and answers it


class Layer(ABC):
    """Something that is done for each call."""

    @abstractmethod
    def over(self, inner: Run) -> Run:
        """``inner`` and what this does for it."""


class Interceptor(ServerInterceptor):
    """Puts layers, the first of them outermost, over the methods of all services."""

    def __init__(self, layers: Sequence[Layer], others: Sequence[Layer], intake: Intake) -> None:
        """``others`` are for methods that are not of this project's services."""
        self._layers = layers
        self._others = others
        self._intake = intake
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
        run = _innermost(handler, self._intake)
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


def _innermost(handler: Handler, intake: Intake) -> Run:
    """The method itself, and what it is asked."""
    answer = cast(
        Behavior,
        handler.unary_unary
        or handler.unary_stream
        or handler.stream_unary
        or handler.stream_stream,
    )
    read = intake.reader(handler.request_deserializer)

    async def messages(call: Call) -> AsyncIterator[Any]:
        while True:
            with intake.place() as grow:
                if (message := await read(call, grow)) is None:
                    return
                yield message

    async def run(call: Call) -> Any:
        with intake.place() as grow:
            if (message := await read(call, grow)) is None:
                await asyncio.sleep(CANCELLED_SECONDS)
                raise InvalidRequest("the call has no message")
            return await answer(message, call.context)

    async def run_stream(call: Call) -> None:
        async for response in answer(messages(call), call.context):
            await call.context.write(response)

    return run_stream if handler.request_streaming else run
