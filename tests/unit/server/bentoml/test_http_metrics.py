from __future__ import annotations

import re
from functools import partial
from typing import Any

import prometheus_client
import pytest
from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware

from pythia_bento.server.bentoml import http_metrics
from pythia_bento.server.bentoml.http_metrics import HttpMetrics, families_of
from pythia_bento.server.bentoml.internals import MissingInternal


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/v1/completions", "/v1/completions"),
        ("/v1/models/a/b@c", "/v1/models/{id}"),
        ("/playground/tokens.js", "/playground/{name}"),
        ("/made-up", "other"),
        ("", "other"),
    ],
)
def test_labels(path: str, label: str) -> None:
    assert http_metrics.label_of(path) == label


class Registered:
    """BentoML's client for metrics, without its files."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()

    def __getattr__(self, kind: str) -> Any:
        return partial(getattr(prometheus_client, kind), registry=self.registry)

    def page(self) -> str:
        return prometheus_client.generate_latest(self.registry).decode()


def theirs(client: Registered, app: Any = None) -> Any:
    """BentoML's middleware, counting in a registry of the test's."""
    found: Any = RunnerTrafficMetricsMiddleware(app, namespace="test", skip_paths=["/livez"])
    found._setup(metrics_client=client, duration_buckets=(60.0,))
    found._setup = lambda: None
    return found


def ours(client: Registered, app: Any) -> Any:
    return HttpMetrics(app, families_of(theirs(client)), skip_paths=["/livez"])


REQUESTS = [("/v1/models/a", 200), ("/v1/models/a", 200), ("/v1/models/b", 404), ("/made-up", 404)]


async def answering(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": scope["status"], "headers": []})
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send({"type": "http.response.body", "body": b"b"})


async def page_after(middleware: Any, requests: list[tuple[str, int]]) -> list[str]:
    """Lines of the metrics page; times left out."""
    client, sent = Registered(), []
    app = middleware(client, answering)

    async def send(message: Any) -> None:
        sent.append(message)

    for path, status in requests:
        await app({"type": "http", "path": path, "status": status}, None, send)
    assert len(sent) == 3 * len(requests)
    times = re.compile(r"_created|_seconds_sum|_timestamp_seconds\{")
    return [line for line in client.page().splitlines() if not times.search(line)]


async def test_metrics_are_bentomls_by_operation() -> None:
    found = await page_after(ours, REQUESTS)
    labels = [(http_metrics.label_of(path), status) for path, status in REQUESTS]
    assert found == await page_after(theirs, labels)
    assert sum("request_total{" in line for line in found) == 3


async def test_in_progress_ends_with_the_request() -> None:
    client = Registered()

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        assert re.search(r'request_in_progress\{endpoint="/".*\} 1.0', client.page())
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await ours(client, failing)({"type": "http", "path": "/"}, None, None)
    assert re.search(r'request_in_progress\{endpoint="/".*\} 0.0', client.page())


async def test_what_is_no_request_passes_uncounted() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    client = Registered()
    middleware = ours(client, app)
    before = client.page()
    await middleware({"type": "lifespan", "path": ""}, None, None)
    await middleware({"type": "websocket", "path": "/made-up"}, None, None)
    await middleware({"type": "http", "path": "/metrics"}, None, None)
    assert seen == ["lifespan", "websocket", "http"]
    assert client.page() == before


def test_a_family_that_is_not_there_is_named() -> None:
    class Renamed:
        def _setup(self) -> None:
            self.metrics_last_request_timestamp = None

    with pytest.raises(MissingInternal, match=r"Renamed\.metrics_request_in_progress"):
        families_of(Renamed())
