"""The gRPC server: in the event loop of the service, on a port of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from opentelemetry import trace

from pythia_bento.protocol import descriptor_pools
from pythia_bento.protocol.generated import bentoml_v1_pb2, pythia_pb2
from pythia_bento.protocol.generated.bentoml_v1_pb2_grpc import add_BentoServiceServicer_to_server
from pythia_bento.protocol.generated.pythia_pb2_grpc import add_PythiaServicer_to_server
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.grpc.bentoml_v1 import BentoService
from pythia_bento.server.grpc.door import Door
from pythia_bento.server.grpc.held_calls import HeldCalls
from pythia_bento.server.grpc.intake import Intake
from pythia_bento.server.grpc.interceptors import SERVICES, Interceptor
from pythia_bento.server.grpc.layers import ApiKeys, ByTurns, Errors, Records, Tracing, Watches
from pythia_bento.server.grpc.metrics import GrpcMetrics
from pythia_bento.server.grpc.port import reserved
from pythia_bento.server.grpc.service import PythiaService
from pythia_bento.server.spans import Uncollected
from pythia_bento.settings import Settings, SettingsError

_LIBRARY = logging.getLogger("grpc._cython.cygrpc")
# Messages on their way at a time: how much of each has come, grpc tells nobody. Honest clients send
# theirs with the head of a call.
MOST_ARRIVING = 256
MOST_WATCHING = 1024  # each costs some 10 KB
# grpc shows a server's calls to the event loop one by one, those of all connections in one queue.
# So there are several servers, and the system gives each connection to one of them: who sends a
# thousand calls at once is in the way of few others. Each server costs a descriptor and some 40 KB.
QUEUES = 32
# Calls that wait in such a queue. Beyond them grpc says CANCELLED, of itself and to nobody else.
MOST_PENDING = 2**12
LOOK_SECONDS = 1.0  # at most until health follows engines that end and come again
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class GrpcServer:
    """Answers from ``start`` to ``stop``; both are called in the event loop that serves."""

    def __init__(
        self,
        runner: PythiaRunner,
        settings: Settings,
        access: AccessControl,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        """Open the port; raises SettingsError."""
        self._runner = runner
        self._settings = settings
        self._check_open = access.in_flight.check_open
        self._metrics = GrpcMetrics()
        tracer = trace.get_tracer(__name__, tracer_provider=tracer_provider)
        layers = (
            Tracing(tracer, Uncollected.of(tracer_provider)),
            Records(self._metrics, tracer),
            Errors(),
            ByTurns(Door(), access),
            ApiKeys(access),
        )
        self._arrivals = HeldCalls("the message", MOST_ARRIVING, settings.client_timeout)
        self._watchers = HeldCalls("changes of the server's health", MOST_WATCHING)
        others = (Errors(), Watches(self._watchers))
        interceptor = Interceptor(
            layers, others, Intake(self._arrivals, access.bodies, runner.limits)
        )
        self._servers = [
            grpc.aio.server(interceptors=[interceptor], options=_options(settings))
            for _ in range(QUEUES)
        ]
        self._health = health.aio.HealthServicer()
        self._telling: asyncio.Task[None] | None = None  # that it is over
        self._following: asyncio.Task[None] | None = None
        self._add_services()
        self.port = _open(self._servers, settings)
        """The port; of the system's choice where the setting was 0."""

    async def start(self) -> None:
        """Take calls; healthy only once that is so."""
        _LIBRARY.addFilter(_is_of_use)
        await self._set_health(NOT_SERVING)
        for server in self._servers:
            await server.start()
        await self._set_health(SERVING)
        self._tell_when_ended()
        self._following = asyncio.create_task(self._follow_engines())

    async def stop(self) -> None:
        """Unhealthy first; then no new calls; clients have their time to read what is left.

        By then no request is let in and all are answered: nothing is computed any more.
        """
        if self._following is not None:
            self._following.cancel()
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(0)  # those who watch write that to their clients
        self.end_unasked()
        self._watchers.close()
        seconds = self._settings.client_timeout
        await asyncio.gather(*(server.stop(seconds) for server in self._servers))

    def say_not_serving(self) -> None:
        """Calls are answered still; for those who ask or watch its health it is over."""
        loop = asyncio.get_running_loop()
        self._telling = loop.create_task(self._health.enter_graceful_shutdown())

    def end_unasked(self) -> None:
        """Refuse calls whose message has not come yet, as new ones are: nothing is lost."""
        self._arrivals.close()

    def metrics(self) -> str:
        """Lines for the metrics page."""
        return self._metrics.text()

    def _add_services(self) -> None:
        pythia, bento = PythiaService(self._runner, self._check_open), BentoService(self._runner)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        files = _all_files()
        for server in self._servers:
            add_PythiaServicer_to_server(pythia, server)
            add_BentoServiceServicer_to_server(bento, server)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            reflection.enable_server_reflection(names, server, pool=files)

    async def _set_health(self, status: Any) -> None:
        for service in ("", *SERVICES):
            await self._health.set(service, status)

    async def _follow_engines(self) -> None:
        """Not serving while no engine is left of several, each of which is started anew."""
        was_ready = True
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if (is_ready := self._runner.is_ready) != was_ready:
                was_ready = is_ready
                await self._set_health(SERVING if is_ready else NOT_SERVING)

    def _tell_when_ended(self) -> None:
        """A dead engine makes the service unhealthy, for those who watch too."""
        loop = asyncio.get_running_loop()

        def ended(_: object) -> None:
            with suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(self.say_not_serving)

        self._runner.stopped.add_done_callback(ended)


def _is_of_use(record: logging.LogRecord) -> bool:
    """Not where a client was gone before it was answered: anybody could fill the log with those."""
    return not (record.exc_info and isinstance(record.exc_info[1], grpc.aio.InternalError))


def _options(settings: Settings) -> list[tuple[str, Any]]:
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.grpc_streams),
        # It would refuse calls (UNAVAILABLE) while others have ended that Python has not freed yet.
        ("grpc.http.overload_protection", 0),
        ("grpc.server.max_pending_requests", MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", MOST_PENDING),
        *_keepalive(settings.client_timeout),
    ]


def _keepalive(seconds: float) -> list[tuple[str, Any]]:
    """A client that is gone without a word is found within ``seconds``; its sequences end."""
    half = round(seconds * 1000 / 2)
    return [
        ("grpc.keepalive_time_ms", half),  # of silence, then a ping
        ("grpc.keepalive_timeout_ms", half),  # for anything to come after it
        ("grpc.http2.ping_timeout_ms", half),  # for its answer
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # clients' own pings
    ]


def _open(servers: Sequence[grpc.aio.Server], settings: Settings) -> int:
    try:
        credentials = _credentials(settings)
        with reserved(settings.grpc_host, settings.grpc_port) as port:
            address = f"{settings.grpc_host}:{port}"
            for server in servers:
                if credentials is None:
                    server.add_insecure_port(address)
                else:
                    server.add_secure_port(address, credentials)
    except (RuntimeError, OSError) as error:
        raise SettingsError(
            f"gRPC cannot listen on {settings.grpc_host}:{settings.grpc_port} (PYTHIA_GRPC_HOST, "
            f"PYTHIA_GRPC_PORT; port 0 is no gRPC): {error}"
        ) from None
    return port


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.grpc_tls_cert is None:
        return None
    pair = (_pem(settings, "grpc_tls_key"), _pem(settings, "grpc_tls_cert"))
    if settings.grpc_tls_client_ca is None:
        return grpc.ssl_server_credentials([pair])
    ca = _pem(settings, "grpc_tls_client_ca")
    return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=True)


def _pem(settings: Settings, name: str) -> bytes:
    try:
        return Path(getattr(settings, name)).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"setting {name} (PYTHIA_{name.upper()}) names a file that cannot be read: {error}"
        ) from None


def _all_files() -> Any:
    """What reflection describes; BentoML's messages are in a pool of their own otherwise."""
    modules = (health_pb2, reflection_pb2, pythia_pb2)
    files = [module.DESCRIPTOR.serialized_pb for module in modules]
    imported = [file.serialized_pb for file in bentoml_v1_pb2.DESCRIPTOR.dependencies]
    return descriptor_pools.with_files(*imported, *files, bentoml_v1_pb2.DESCRIPTOR.serialized_pb)
