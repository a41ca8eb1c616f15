"""BentoML's metrics of HTTP, with a bounded number of endpoints, and in memory.

BentoML lets processes share numbers through files that are mapped into memory. On a full disk the
system ends a process that touches a new page of one (SIGBUS). One worker has nothing to share.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import prometheus_client
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.server.http import instruments
from bentoml._internal.server.metrics.prometheus import PrometheusClient
from prometheus_client import values
from starlette.types import ASGIApp, Receive, Scope, Send

from pythia_bento.api.description.operations import OPERATIONS

PYTHONS_OWN = (
    prometheus_client.GC_COLLECTOR,
    prometheus_client.PLATFORM_COLLECTOR,
    prometheus_client.PROCESS_COLLECTOR,
)
OTHER = "other"  # the label of all paths that are not served
_PATH = "pythia.path"
_FOLDERS = ("/playground/", "/static_content/")
_PATHS = {operation.path for operation in OPERATIONS if "{" not in operation.path} | {"/"}
_TEMPLATES = {
    operation.path: re.compile(re.sub(r"\{\w+\}", ".+", operation.path))
    for operation in OPERATIONS
    if "{" in operation.path
}


class TrafficMetrics(instruments.RunnerTrafficMetricsMiddleware):
    """Counts by route: whoever asks for made-up paths adds nothing to the metrics page."""

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        super().__init__(_RealPath(app), **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; BentoML takes the label from the scope."""
        if scope["type"] == "http":
            scope = {**scope, _PATH: scope["path"], "path": endpoint(scope["path"])}
        await super().__call__(scope, receive, send)


class _RealPath:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _PATH in scope:
            scope = {**scope, "path": scope[_PATH]}
        await self.app(scope, receive, send)


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
