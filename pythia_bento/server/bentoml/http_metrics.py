"""BentoML's metrics of HTTP, with a bounded number of endpoints, and in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from timeit import default_timer
from typing import Any, NamedTuple

import bentoml
import prometheus_client
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pythia_bento.server.bentoml.internals import CONTAINER, attribute, internal, replace
from pythia_bento.server.openapi.operations import operation_of

# Of Python itself. What the process takes, ``process_...``, is kept.
UNASKED = (prometheus_client.GC_COLLECTOR, prometheus_client.PLATFORM_COLLECTOR)
OTHER = "other"  # the label of all paths that are not served


class Families(NamedTuple):
    """BentoML's metrics that requests count in."""

    last: Any  # gauge: when the last request came
    in_progress: Any  # gauge
    total: Any  # counter
    duration: Any  # histogram of seconds


def families_of(theirs: Any) -> Families:
    """Those of an instance of BentoML's middleware; raises MissingInternal."""
    attribute(theirs, "_setup")()
    return Families(
        last=attribute(theirs, "metrics_last_request_timestamp"),
        in_progress=attribute(theirs, "metrics_request_in_progress"),
        total=attribute(theirs, "metrics_request_total"),
        duration=attribute(theirs, "metrics_request_duration"),
    )


class HttpMetrics:
    """Counts by operation: whoever asks for made-up paths adds nothing to the metrics page.

    Looking a metric up by its labels takes longer than counting, and there are few, so they are
    looked up once.
    """

    def __init__(self, app: ASGIApp, families: Families, skip_paths: Sequence[str] = ()) -> None:
        self.app = app
        self._families = families
        self._skipped = tuple(skip_paths)
        self._begun: dict[str, _Begun] = {}
        self._ended: dict[tuple[str, int], _Ended] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] == "/metrics":
            return await self.app(scope, receive, send)
        start, status, label = default_timer(), 0, label_of(scope["path"])
        begun = self._begun.get(label) or self._begin(label)
        if not label.startswith(self._skipped):
            begun.last.set_to_current_time()

        def counting(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                ended = self._ended.get((label, status)) or self._end(label, status)
                ended.total.inc()
                ended.duration.observe(max(default_timer() - start, 0))
            return send(message)

        begun.in_progress.inc()
        try:
            await self.app(scope, receive, counting)
        finally:
            begun.in_progress.dec()

    def _begin(self, label: str) -> _Begun:
        last = self._families.last.labels(**_service_labels())
        in_progress = self._families.in_progress.labels(endpoint=label, **_service_labels())
        return self._begun.setdefault(label, _Begun(last, in_progress))

    def _end(self, label: str, status: int) -> _Ended:
        labels = _service_labels() | {"endpoint": label, "http_response_code": status}
        total = self._families.total.labels(**labels)
        duration = self._families.duration.labels(**labels)
        return self._ended.setdefault((label, status), _Ended(total, duration))


class _Begun(NamedTuple):
    """What a request changes when it comes."""

    last: Any
    in_progress: Any


class _Ended(NamedTuple):
    """What it changes when it is answered."""

    total: Any
    duration: Any


def _service_labels() -> dict[str, Any]:
    context = bentoml.server_context
    return {
        "service_name": context.bento_name,
        "service_version": context.bento_version,
        "runner_name": context.service_name,
    }


def label_of(path: str) -> str:
    """The operation of a path, as the OpenAPI document writes it."""
    operation = operation_of(path)
    return operation.path if operation else OTHER


def keep_in_memory() -> None:
    """Keep this process's metrics in memory; raises MissingInternal, and then changes nothing.

    BentoML lets processes share numbers through files that are mapped into memory. On a full disk
    the system ends a process that touches a new page of one (SIGBUS). One worker has nothing to
    share.
    """
    client = internal("bentoml._internal.server.metrics.prometheus:PrometheusClient")
    container = internal(f"{CONTAINER}.metrics_client")
    replace("prometheus_client.values:ValueClass", internal("prometheus_client.values:MutexValue"))
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    for collector in UNASKED:
        with suppress(KeyError):
            prometheus_client.REGISTRY.unregister(collector)
    container.set(client(multiproc=False))
