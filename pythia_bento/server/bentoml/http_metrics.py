"""BentoML's metrics of HTTP, with a bounded number of endpoints, and in memory.

BentoML lets processes share numbers through files that are mapped into memory. On a full disk the
system ends a process that touches a new page of one (SIGBUS). One worker has nothing to share.
"""

from __future__ import annotations

import re
from contextlib import suppress
from timeit import default_timer
from typing import Any, NamedTuple

import prometheus_client
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.server.http import instruments
from bentoml._internal.server.metrics.prometheus import PrometheusClient
from prometheus_client import values
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pythia_bento.server.openapi.operations import OPERATIONS

PYTHONS_OWN = (
    prometheus_client.GC_COLLECTOR,
    prometheus_client.PLATFORM_COLLECTOR,
    prometheus_client.PROCESS_COLLECTOR,
)
OTHER = "other"  # the label of all paths that are not served
_FOLDERS = ("/playground/", "/static_content/")
_PATHS = {operation.path for operation in OPERATIONS if "{" not in operation.path} | {"/"}
_TEMPLATES = {
    operation.path: re.compile(re.sub(r"\{\w+\}", ".+", operation.path))
    for operation in OPERATIONS
    if "{" in operation.path
}


class TrafficMetrics(instruments.RunnerTrafficMetricsMiddleware):
    """Counts by route: whoever asks for made-up paths adds nothing to the metrics page.

    The metrics are BentoML's. Looking one up by its labels takes longer than counting, and there
    are few, so they are looked up once.
    """

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        super().__init__(app, **options)
        self._skipped = tuple(self.skip_paths)
        self._counted: dict[str, _Endpoint] = {}
        self._answered: dict[tuple[str, int], _Answers] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] == "/metrics":
            return await super().__call__(scope, receive, send)
        if not self._is_setup:
            self._setup()
        began, status, name = default_timer(), 0, endpoint(scope["path"])
        counted = self._counted.get(name) or self._count(name)
        if not name.startswith(self._skipped):
            counted.last.set_to_current_time()

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                answers = self._answered.get((name, status)) or self._answer(name, status)
                answers.total.inc()
                answers.duration.observe(max(default_timer() - began, 0))
            await send(message)

        counted.in_progress.inc()
        try:
            await self.app(scope, receive, counting)
        finally:
            counted.in_progress.dec()

    def _count(self, name: str) -> _Endpoint:
        labels = _service_labels()
        last = self.metrics_last_request_timestamp.labels(**labels)
        in_progress = self.metrics_request_in_progress.labels(endpoint=name, **labels)
        return self._counted.setdefault(name, _Endpoint(last, in_progress))

    def _answer(self, name: str, status: int) -> _Answers:
        labels = _service_labels() | {"endpoint": name, "http_response_code": status}
        total = self.metrics_request_total.labels(**labels)
        duration = self.metrics_request_duration.labels(**labels)
        return self._answered.setdefault((name, status), _Answers(total, duration))


class _Endpoint(NamedTuple):
    last: Any  # gauge: when the last request came
    in_progress: Any  # gauge


class _Answers(NamedTuple):
    total: Any  # counter
    duration: Any  # histogram of seconds


def _service_labels() -> dict[str, Any]:
    return {
        "service_name": server_context.bento_name,
        "service_version": server_context.bento_version,
        "runner_name": server_context.service_name,
    }


def endpoint(path: str) -> str:
    """The route of a path, as the OpenAPI document writes it."""
    if path in _PATHS:
        return path
    if folder := next((folder for folder in _FOLDERS if path.startswith(folder)), None):
        return folder
    found = (name for name, pattern in _TEMPLATES.items() if pattern.fullmatch(path))
    return next(found, OTHER)


def install() -> None:
    """For applications that BentoML makes from now on in this process."""
    instruments.RunnerTrafficMetricsMiddleware = TrafficMetrics  # type: ignore[assignment,misc]
    _keep_in_memory()


def _keep_in_memory() -> None:
    values.ValueClass = values.MutexValue
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    for collector in PYTHONS_OWN:  # which the files never had
        with suppress(KeyError):
            prometheus_client.REGISTRY.unregister(collector)
    BentoMLContainer.metrics_client.set(PrometheusClient(multiproc=False))
