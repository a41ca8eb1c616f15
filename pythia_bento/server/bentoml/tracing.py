"""One OpenTelemetry span for each HTTP request, and what is known of it while it is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pythia_bento.server.bentoml.internals import CONTAINER, internal
from pythia_bento.server.spans import Sampler, Uncollected, trace_call
from pythia_bento.telemetry.calls import new_call, working_for

REQUEST_ID = b"x-request-id"


class RequestSpans:
    """OpenTelemetry's middleware, without the spans of single messages.

    Those cost about as much as the rest of sending an event of a stream, even where no trace is
    collected, and fill traces with one entry an event. BentoML has no setting for them.
    """

    def __init__(
        self,
        app: ASGIApp,
        theirs: Callable[..., ASGIApp],
        tracer_provider: Any = None,
        server_request_hook: Callable[..., object] | None = None,
        **options: Any,
    ) -> None:
        """``theirs`` makes OpenTelemetry's middleware; all other options are its own."""
        self.app = app
        self._hook = server_request_hook
        self._uncollected = Uncollected.of(tracer_provider)
        self._recorded = theirs(
            app,
            tracer_provider=tracer_provider,
            server_request_hook=server_request_hook,
            exclude_spans=["receive", "send"],
            **options,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. One that nobody will ever see in a trace gets a number only."""
        spans = self._uncollected
        if scope["type"] != "http" or spans is None or spans.is_linked(_names(scope)):
            return await self._recorded(scope, receive, send)
        span = spans.make()
        token = context.attach(trace.set_span_in_context(span))
        try:
            if self._hook is not None:
                self._hook(span, scope)
            await self.app(scope, receive, send)
        finally:
            context.detach(token)


def _names(scope: Scope) -> Iterator[str]:
    return (name.decode("latin-1") for name, _ in scope["headers"])


class Calls:
    """Knows a request as a ``CallContext`` while it is answered; names it in the answer."""

    def __init__(self, app: ASGIApp, tracer_provider: Any = None) -> None:
        self.app = app
        self._tracer = trace.get_tracer(__name__, tracer_provider=tracer_provider)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        sent: bytes | None = dict(scope["headers"]).get(REQUEST_ID)
        call = new_call(None if sent is None else sent.decode("latin-1"))
        named = (REQUEST_ID, call.request_id.encode())

        is_traced = False

        def naming(message: Message) -> Awaitable[None]:
            nonlocal is_traced
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], named]}
            elif not message.get("more_body", False):
                is_traced = True  # now: the span ends when this has been sent
                trace_call(self._tracer, call)
            return send(message)

        with working_for(call):
            try:
                await self.app(scope, receive, naming)
            finally:
                if not is_traced:  # the client left
                    trace_call(self._tracer, call)


def tracer_provider() -> Any:
    """What makes the tracers of this process; raises MissingInternal."""
    return internal(f"{CONTAINER}.tracer_provider").get()


def set_sampler() -> None:
    """Let traces that are not collected cost little; raises MissingInternal.

    BentoML's sampler has spans recorded that are not sampled, "so that we can get the trace_id";
    nobody reads them. OpenTelemetry's own gives those a trace id too, for a third of the time.
    Tracers that were made before keep the sampler that they have.
    """
    rate, provider = internal(f"{CONTAINER}.tracing").sample_rate.get(), tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.sampler = Sampler(rate or 0.0)
