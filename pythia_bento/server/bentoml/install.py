"""Our layers in BentoML's stack: the one place where BentoML is bent.

From the socket inwards a request passes (in brackets whose place a layer of ours takes):

1. ``http_protocol.BoundedHttp`` [uvicorn's protocol]
2. ``http_metrics.HttpMetrics`` [RunnerTrafficMetricsMiddleware], where metrics are enabled
3. ``tracing.RequestSpans`` [OpenTelemetryMiddleware]
4. ``tracing.Calls``
5. ``access_log.AccessLog`` [AccessLogMiddleware], where the access log is enabled
6. ``time_limit.TimeLimit`` [TimeoutMiddleware], and BentoML's MaxConcurrencyMiddleware where one is
   set
7. starlette's CORSMiddleware, where a setting names origins
8. ``http.access.AccessMiddleware``
9. ``http.body.RequestMiddleware``
10. ``http.packed.Packed``
11. BentoML's CORSMiddleware, where it is enabled
12. ``inner_calls.InnerCalls``
13. ``direct_routes.DirectRoutes``
14. BentoML's ContextMiddleware and its router

7 to 10 are added by BentoML's own ``add_asgi_middleware``, the others here, to the application of
one service: importing it leaves other services of the process as they were. What cannot be bound to
an application (1, metrics in memory, the sampler, the format of logs) is done when a process makes
the application, and BentoML has a process for each service that it serves. In the process of the
command, ``when_served`` does what belongs to commands about this service alone. Whoever calls
``to_asgi`` in a process of their own has these for all that it serves.

Where an internal of BentoML is missing, 3, 13, metrics in memory and the sampler are BentoML's own,
slower ones, with a line of log. Without the others a limit, a log field or a bound on what
strangers can make us keep would be gone: then the service does not start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import bentoml
from starlette.applications import Starlette
from starlette.middleware import Middleware

from pythia_bento.server.bentoml import addresses, error_log, http_metrics, http_protocol, tracing
from pythia_bento.server.bentoml.access_log import AccessLog
from pythia_bento.server.bentoml.direct_routes import DirectRoutes, routes_of
from pythia_bento.server.bentoml.http_metrics import HttpMetrics, families_of
from pythia_bento.server.bentoml.inner_calls import InnerCalls
from pythia_bento.server.bentoml.internals import (
    CONTAINER,
    MissingInternal,
    attribute,
    internal,
    optional,
)
from pythia_bento.server.bentoml.time_limit import TimeLimit
from pythia_bento.server.bentoml.tracing import Calls, RequestSpans
from pythia_bento.server.giving_up import give_up
from pythia_bento.server.memory import limit_arenas
from pythia_bento.telemetry import logs

SERVICE = "_bentoml_sdk.service.factory:Service"
METRICS = "bentoml._internal.server.http.instruments:RunnerTrafficMetricsMiddleware"
SPANS = "opentelemetry.instrumentation.asgi:OpenTelemetryMiddleware"
ACCESS_LOG = "bentoml._internal.server.http.access:AccessLogMiddleware"
TIME_LIMIT = "bentoml._internal.server.http.traffic:TimeoutMiddleware"
CONTEXT = "_bentoml_impl.server.app:ContextMiddleware"
# Without these the service does not start; that BentoML also uses them shows when it does.
NEEDED = (
    *(
        f"{SERVICE}.to_asgi",
        f"{SERVICE}.inject_config",
        METRICS,
        ACCESS_LOG,
        TIME_LIMIT,
        error_log.LOGGER,
    ),
    *(f"{CONTAINER}.{name}" for name in ("api_server_config", "config", "tracer_provider")),
    addresses.ADDRESSES,
)
OUTSIDE_OF_CALLS: tuple[Any, ...] = (HttpMetrics, RequestSpans)


def service_class(
    log_format: logs.LogFormat, when_served: Callable[[], None] = lambda: None
) -> type[Any]:
    """BentoML's class of services, whose application has our layers; for ``bentoml.service``.

    ``when_served`` is called in the process of a command about this service itself, as serve or
    build, and not where another service depends on it. Raises MissingInternal where BentoML is not
    as it has to be.
    """
    http_protocol.check()
    for path in NEEDED:
        internal(path)

    class LayeredService(internal(SERVICE)):  # type: ignore[misc]  # no types here
        __slots__ = ()

        def inject_config(self) -> None:
            """BentoML asks this of the service that a command names; workers ask it of theirs."""
            if bentoml.server_context.worker_index is None:
                when_served()
            super().inject_config()

        def to_asgi(self, is_main: bool = True) -> Any:
            try:
                _check_alone(self.name)
                _prepare_process(log_format)
                app = super().to_asgi(is_main=is_main)
                found = attribute(app, "user_middleware")
                found[:] = layers(
                    found, _mounted(self), not is_main and addresses.is_private(self.name)
                )
            except MissingInternal as error:
                give_up(error.message)
            return app

    return LayeredService


def layers(
    theirs: Sequence[Middleware],
    mounts: Iterable[tuple[Starlette, str]],
    is_private: bool = False,
) -> list[Middleware]:
    """BentoML's layers, outermost first, with ours among them; raises MissingInternal.

    ``is_private`` is true where only services of the same Bento can ask.
    """
    stack = _Stack(theirs)
    config = internal(f"{CONTAINER}.api_server_config")
    if config.metrics.enabled.get():
        stack.replace(METRICS, _http_metrics)
    with optional("each event of a stream is a span"):
        stack.replace(SPANS, _request_spans)
    with optional("spans that nobody collects are recorded"):
        tracing.set_sampler()
    stack.insert_calls()
    if config.logging.access.enabled.get():
        stack.replace(ACCESS_LOG, _access_log)
    stack.replace(TIME_LIMIT, _time_limit)
    with optional("requests are routed by BentoML"):
        stack.insert_before(CONTEXT, _layer(DirectRoutes, routes=routes_of(mounts)))
    stack.insert_inner_calls(is_private)
    return stack.layers


class _Stack:
    """Layers, outermost first; those of BentoML are known by where their class stands."""

    def __init__(self, layers: Sequence[Middleware]) -> None:
        self.layers = list(layers)

    def replace(self, path: str, ours: Callable[[Middleware], Middleware]) -> None:
        """Put ours in the place of theirs; raises MissingInternal where there is none."""
        place = self._find(path)
        self.layers[place] = ours(self.layers[place])

    def insert_before(self, path: str, layer: Middleware) -> None:
        """Directly outside of theirs; raises MissingInternal."""
        self.layers.insert(self._find(path), layer)

    def insert_calls(self) -> None:
        """Inside of the spans, whose attributes they set, and outside of all that logs."""
        place = sum(layer.cls in OUTSIDE_OF_CALLS for layer in self.layers)
        provider = tracing.tracer_provider()
        self.layers.insert(place, _layer(Calls, tracer_provider=provider))

    def insert_inner_calls(self, is_private: bool) -> None:
        """Inside of all that a service adds, and outside of what answers."""
        kinds: list[Any] = [layer.cls for layer in self.layers]
        place = kinds.index(DirectRoutes) if DirectRoutes in kinds else len(kinds)
        self.layers.insert(place, _layer(InnerCalls, is_private=is_private))

    def _find(self, path: str) -> int:
        wanted = internal(path)
        for place, layer in enumerate(self.layers):
            if layer.cls is wanted:
                return place
        raise MissingInternal(path, "layer ")


def _check_alone(name: str) -> None:
    """End where BentoML is told to start several workers: limits would hold for each of them."""
    services = internal(f"{CONTAINER}.config").get().get("services", {})
    if (workers := services.get(name, {}).get("workers") or 1) != 1:
        give_up(
            f"the service {name} has one worker, which batches for all, and workers is {workers}; "
            "PYTHIA_DEVICES is for several devices"
        )


def _prepare_process(log_format: logs.LogFormat) -> None:
    """What holds for all that this process serves, which is one service."""
    limit_arenas()
    http_protocol.limit_framing()
    error_log.hide_bodies()
    logs.install(log_format)
    with optional("metrics are kept in files"):
        http_metrics.keep_in_memory()


def _layer(kind: Any, **options: Any) -> Middleware:
    return Middleware(kind, **options)


def _http_metrics(layer: Middleware) -> Middleware:
    theirs: Any = layer.cls
    families = families_of(theirs(None, **layer.kwargs))
    return _layer(HttpMetrics, families=families, skip_paths=layer.kwargs["skip_paths"])


def _request_spans(layer: Middleware) -> Middleware:
    return _layer(RequestSpans, theirs=layer.cls, **layer.kwargs)


def _access_log(layer: Middleware) -> Middleware:
    return _layer(AccessLog, **layer.kwargs)


def _time_limit(layer: Middleware) -> Middleware:
    return _layer(TimeLimit, **layer.kwargs)


def _mounted(service: Any) -> Iterable[tuple[Starlette, str]]:
    for app, path, _ in service.mount_apps:
        if isinstance(app, Starlette):
            yield app, path
