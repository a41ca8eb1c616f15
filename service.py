"""The BentoML service: wiring only. ``bentoml serve`` starts it from this directory."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from pydantic import AfterValidator, WithJsonSchema

from pythia_bento import logs, packaging
from pythia_bento.api import (
    access_log,
    native,
    openai,
    pages,
    tokenizer_routes,
    tracing,
    traffic,
)
from pythia_bento.api.access import AccessControl
from pythia_bento.api.connections import limit_silence
from pythia_bento.api.drain import Drain
from pythia_bento.api.errors import error_response
from pythia_bento.api.heads import limit_heads
from pythia_bento.api.metrics import engine_metrics
from pythia_bento.api.middleware import AccessMiddleware, RequestMiddleware
from pythia_bento.api.schemas import GenerateRequest, ScoreItem
from pythia_bento.errors import EngineUnavailable, PythiaError
from pythia_bento.progress import ProgressBars
from pythia_bento.runner import PythiaRunner, as_caller
from pythia_bento.settings import load_settings, wants_gpu

if TYPE_CHECKING:
    from pythia_bento.api.grpc.server import GrpcServer

# Items are validated one by one in the handler, so that a bad one fails alone.
Item = Annotated[
    Any, AfterValidator(native.attributed), WithJsonSchema(ScoreItem.model_json_schema())
]

try:
    settings = load_settings(vars(bentoml.use_arguments()))
    access = AccessControl.from_settings(settings)
    pinned_model = packaging.pinned_model(settings)
except PythiaError as error:
    raise bentoml.exceptions.InvalidArgument(error.message) from None

openai_app = openai.create_app()
tokenizer_app = tokenizer_routes.create_app()
pages_app = pages.create_app()
limit_heads()
for bentoml_part in (tracing, access_log, traffic):
    bentoml_part.install()
logs.install(settings.log_format)

# How long the engine's thread waits for the interpreter when it comes back from the device while
# requests are served. Python's default of 5 ms is half the time of what it queued there.
SWITCH_SECONDS = 0.0005


@bentoml.service(
    name="pythia",
    workers=1,  # one device, one engine: it batches better than two workers share
    # The engine keeps the deadline and answers in OpenAI's shape; this is only the last resort.
    traffic={"timeout": settings.request_timeout + 60},
    resources={"gpu": 1} if wants_gpu(settings) else {},
    image=packaging.image(settings),
    envs=packaging.environment(settings),
)
@bentoml.asgi_app(openai_app, path="/v1")
@bentoml.asgi_app(tokenizer_app, path="/")
@bentoml.asgi_app(pages_app, path="/")  # before BentoML's own page at /
class Pythia:
    """Serves one Pythia checkpoint in 8 bits."""

    model = pinned_model  # BentoML puts it into the Bento

    def __init__(self) -> None:
        self._runner: PythiaRunner | None = None
        self._grpc: GrpcServer | None = None
        self._drain = Drain(access.door, settings.drain_seconds)

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Refuse a checkpoint that cannot be served, once, before any worker starts."""
        from pythia_bento.loading import check_loadable  # imports torch

        try:
            check_loadable(settings)
        except PythiaError as error:
            raise bentoml.exceptions.BentoMLException(error.message) from None

    @bentoml.on_startup
    async def start(self) -> None:
        """Load the model; the worker is not ready before."""
        try:
            with ProgressBars() as bars:
                self._runner = await asyncio.to_thread(PythiaRunner.load, settings, bars)
        except PythiaError as error:
            _give_up(error.message)
        for app in (openai_app, tokenizer_app, pages_app):
            app.state.runner = self._runner
        await self._start_grpc(self._runner)
        self._drain.install(self._is_draining)
        limit_silence(settings.client_timeout)
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # what lives now lives on: later collections need not look at it

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """End what is open and free the model."""
        for app in (openai_app, tokenizer_app, pages_app):
            app.state.runner = None
        if self._grpc is not None:
            await self._grpc.stop()
        if self._runner is not None:
            await asyncio.to_thread(self._runner.close)

    @bentoml.api(input_spec=GenerateRequest)
    async def generate(self, **fields: Any) -> dict[str, Any]:
        """Continue a prompt."""
        try:
            body = GenerateRequest.model_construct(**fields)
            if body.stream:
                return await native.stream(self.runner, body)  # type: ignore[return-value]
            return await native.generate(self.runner, body)
        except PythiaError as error:
            return error_response(error)  # type: ignore[return-value]

    # BentoML's adaptive batching joins the items of concurrent requests. Its rule for shedding
    # load guesses too high, so the limit is out of reach: the engine's queue decides.
    @bentoml.api(batchable=True, max_batch_size=1024, max_latency_ms=10**9)
    async def score(self, items: list[Item]) -> list[dict[str, Any]]:
        """Log-probabilities of texts; an item that fails has ``error`` in its place."""
        with as_caller("/score"):  # whose items they are is not known any more
            return await native.score(self.runner, items)

    @property
    def runner(self) -> PythiaRunner:
        """Raises EngineUnavailable before and after its time."""
        if self._runner is None:
            raise EngineUnavailable("the model is not loaded")
        return self._runner

    async def __is_ready__(self) -> bool:
        is_ready = self._runner is not None and self._runner.is_ready
        return is_ready and not self._drain.has_begun

    async def __is_alive__(self) -> bool:
        return self._runner is None or self._runner.is_ready

    async def __metrics__(self, text: str) -> str:
        calls = self._grpc.metrics() if self._grpc else ""
        return text + engine_metrics(self.runner) + calls

    def _is_draining(self) -> None:
        if self._grpc is not None:
            self._grpc.say_not_serving()

    async def _start_grpc(self, runner: PythiaRunner) -> None:
        if settings.grpc_port == 0:
            return
        # Imported here: only the process that serves needs it.
        from pythia_bento.api.grpc.server import GrpcServer

        try:
            self._grpc = GrpcServer(
                runner, settings, access, BentoMLContainer.tracer_provider.get()
            )
            await self._grpc.start()
        except PythiaError as error:
            _give_up(error.message)


Pythia.add_asgi_middleware(AccessMiddleware, access=access)
Pythia.add_asgi_middleware(
    RequestMiddleware,
    max_body_bytes=settings.max_body_bytes,
    client_timeout=settings.client_timeout,
)


def _give_up(message: str) -> None:
    """Say why. Under ``bentoml serve`` end the supervisor too: it would start us for ever."""
    print(f"pythia-bento: {message}", file=sys.stderr, flush=True)
    if bentoml.server_context.worker_index:
        os.kill(os.getppid(), signal.SIGTERM)
        os._exit(1)
    raise SystemExit(1)
