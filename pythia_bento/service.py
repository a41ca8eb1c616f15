"""The BentoML service: wiring only. ``bentoml serve pythia_bento.service:Pythia`` starts it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any

import bentoml
from pydantic import AfterValidator, PlainSerializer, StrictBool, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from pythia_bento.errors import PythiaError
from pythia_bento.handlers.generate import generate
from pythia_bento.handlers.score import attributed, score, unattributed
from pythia_bento.protocol.bodies import GenerateRequest, GenerateStreamRequest, ScoreItem
from pythia_bento.runtime.devices import check_devices, concurrency, resources
from pythia_bento.runtime.preflight import check_loadable
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.bentoml import install, packaging, start_errors
from pythia_bento.server.http import native, openai, pages, probes, tokenizer
from pythia_bento.server.http.access import AccessMiddleware
from pythia_bento.server.http.body import RequestMiddleware
from pythia_bento.server.http.chat_template import ChatTemplate
from pythia_bento.server.http.cors import cors
from pythia_bento.server.http.errors import error_response
from pythia_bento.server.http.packed import Packed
from pythia_bento.server.worker import Worker
from pythia_bento.settings import Arguments, check_names
from pythia_bento.telemetry import logs
from pythia_bento.telemetry.calls import current_call

# Items are validated one by one in the handler, so that a bad one fails alone.
Item = Annotated[
    Any,
    AfterValidator(attributed),
    PlainSerializer(unattributed),
    WithJsonSchema(ScoreItem.model_json_schema()),
]


class GenerateCall(GenerateRequest):
    """``stream`` is for HTTP: BentoML's clients, which would not understand it, are not told."""

    stream: SkipJsonSchema[StrictBool] = False


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except PythiaError as error:
        raise bentoml.exceptions.InvalidArgument(error.message) from None


def _when_served() -> None:
    """Not where another service depends on this one: it has arguments and words of its own."""
    start_errors.install()
    logs.install(settings.log_format)
    with _refusing():
        check_names(vars(bentoml.use_arguments()))


with _refusing():
    settings = bentoml.use_arguments(Arguments)
    check_devices(settings)
    access = AccessControl.from_settings(settings)
    chat_template = ChatTemplate.from_settings(settings)
    pinned_model = packaging.pinned_model(settings)
    service_class = install.service_class(settings.log_format, _when_served)


def _exception(error: PythiaError) -> Exception:
    """BentoML's, with the same status."""
    return bentoml.exceptions.BentoMLException(error.message, error_code=HTTPStatus(error.status))


def _passes(check: Callable[[], None]) -> bool:
    """The answer of a probe; where it is no, BentoML's own sentence would not say why."""
    try:
        check()
    except PythiaError as error:
        raise HTTPException(error.status, error.message) from None
    return True


openai_app = openai.create_app(chat_template)
tokenizer_app = tokenizer.create_app()
native_app = native.create_app()
probes_app = probes.create_app()
pages_app = pages.create_app()
apps = (openai_app, tokenizer_app, native_app, probes_app, pages_app)


@bentoml.service(
    name="pythia",
    service_class=service_class,
    workers=1,  # in front of all engines, of which each has a device of its own
    # The engine keeps the deadline and answers in OpenAI's shape; this is only the last resort.
    traffic={
        "timeout": settings.request_timeout + 60,
        "concurrency": concurrency(settings),
    },
    # A service that depends on this one would else close its connections every hundred calls, those
    # that are in use, too.
    runner_connection={"max_requests": 10**9, "max_age": 1e9},
    resources=packaging.room(settings) | resources(settings),
    image=packaging.image(settings),
    envs=packaging.environment(settings),
)
@bentoml.asgi_app(openai_app, path="/v1")
@bentoml.asgi_app(tokenizer_app, path="/")
@bentoml.asgi_app(native_app, path="/")  # bodies in JSON
@bentoml.asgi_app(probes_app, path="/")
@bentoml.asgi_app(pages_app, path="/")  # before BentoML's own page at /
class Pythia:
    """Serves Pythia checkpoints in 8 bits: BentoML around a runner with adaptive batching."""

    model = pinned_model  # BentoML puts it into the Bento

    def __init__(self) -> None:
        self._worker = Worker(settings, access, apps)

    @property
    def runner(self) -> PythiaRunner:
        """The model on its device. All that is asked, over HTTP and gRPC, is one batch.

        It is formed anew at every step: adaptive batching without a window to wait for.
        """
        return self._worker.runner

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Refuse a checkpoint that cannot be served, once, before any worker starts."""
        try:
            check_loadable(settings)
        except PythiaError as error:
            raise bentoml.exceptions.BentoMLException(error.message) from None

    @bentoml.on_startup
    async def start(self) -> None:
        """Load the model; the worker is not ready before."""
        await self._worker.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """End what is open and free the model."""
        await self._worker.stop()

    @bentoml.api(input_spec=GenerateCall)
    async def generate(self, **fields: Any) -> dict[str, Any]:
        """Continue a prompt."""
        try:
            body = GenerateCall.model_construct(**fields)
            if body.stream:
                return await native.stream(self.runner, body)  # type: ignore[return-value]
            return await generate(await self.runner.served(body.model), body)  # type: ignore[return-value]
        except PythiaError as error:
            if current_call() is None:  # nobody asks over HTTP, but this process
                raise _exception(error) from None
            return error_response(error)  # type: ignore[return-value]

    @bentoml.api(input_spec=GenerateStreamRequest)
    async def generate_stream(self, **fields: Any) -> AsyncGenerator[str, None]:
        """Continue a prompt: server-sent events, as ``/generate`` writes them with ``stream``."""
        body = GenerateStreamRequest.model_construct(**fields)
        try:
            async for event in native.texts(self.runner, body):
                yield event
        except PythiaError as error:
            raise _exception(error) from None

    # BentoML's own adaptive batching joins the items of concurrent calls before the runner does.
    # Its rule for shedding load guesses too high, so the limit is out of reach: the engine's queue
    # decides.
    @bentoml.api(batchable=True, max_batch_size=1024, max_latency_ms=10**9)
    async def score(self, items: list[Item]) -> list[dict[str, Any]]:
        """Log-probabilities of texts; an item that fails has ``error`` in its place."""
        try:
            return await score(self.runner, items)  # type: ignore[return-value]
        except PythiaError as error:
            raise _exception(error) from None

    async def __is_ready__(self) -> bool:
        return _passes(self._worker.check_ready)

    async def __is_alive__(self) -> bool:
        return _passes(self._worker.check_alive)

    async def __metrics__(self, text: str) -> str:
        return text + self._worker.metrics()


# Some of the layers that a request passes; `install` has the others, and their order.
if settings.cors_origins:
    Pythia.add_asgi_middleware(CORSMiddleware, **cors(settings))  # type: ignore[attr-defined]
Pythia.add_asgi_middleware(AccessMiddleware, access=access)  # type: ignore[attr-defined]
Pythia.add_asgi_middleware(  # type: ignore[attr-defined]
    RequestMiddleware,
    max_body_bytes=settings.max_body_bytes,
    room=access.bodies,
    client_timeout=settings.client_timeout,
    max_tensor_bytes=settings.max_tensor_bytes,
)
Pythia.add_asgi_middleware(Packed)  # type: ignore[attr-defined]
