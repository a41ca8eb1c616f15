from __future__ import annotations

import re
from functools import partial
from typing import Any

import prometheus_client
import pytest
from bentoml._internal.server.http import instruments

from pythia_bento.server.bentoml import http_metrics
from pythia_bento.server.openapi.operations import OPERATIONS


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/", "/"),
        ("/v1/completions", "/v1/completions"),
        ("/v1/models", "/v1/models"),
        ("/v1/models/a", "/v1/models/{id}"),
        ("/v1/models/a/b@c", "/v1/models/{id}"),
        ("/playground", "/playground"),
        ("/playground/tokens.js", "/playground/"),
        ("/v1/Completions", "other"),
        ("/v1/completions/", "other"),
        ("/v1/models/", "other"),
        ("/x/v1/models/a", "other"),
        ("", "other"),
        ("/é\n", "other"),
    ],
)
def test_labels(path: str, label: str) -> None:
    assert http_metrics.endpoint(path) == label


def test_every_operation_has_its_own() -> None:
    for operation in OPERATIONS:
        path = operation.path.replace("{id}", "some-model")
        assert http_metrics.endpoint(path) == operation.path


class Registered:
    """BentoML's client for metrics, without its files."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()

    def __getattr__(self, kind: str) -> Any:
        return partial(getattr(prometheus_client, kind), registry=self.registry)

    def page(self) -> str:
        return prometheus_client.generate_latest(self.registry).decode()


REQUESTS = [("/v1/models/a", 200), ("/v1/models/a", 200), ("/v1/models/b", 404), ("/made-up", 404)]


async def answering(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": scope["status"], "headers": []})
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send({"type": "http.response.body", "body": b"b"})


async def page_after(middleware: type[Any], requests: list[tuple[str, int]]) -> list[str]:
    """Lines of the metrics page; times left out."""
    client, sent = Registered(), []
    app = middleware(answering, namespace="test", skip_paths=["/livez"])
    app._setup(metrics_client=client, duration_buckets=(60.0,))

    async def send(message: Any) -> None:
        sent.append(message)

    for path, status in requests:
        await app({"type": "http", "path": path, "status": status}, None, send)
    assert len(sent) == 3 * len(requests)
    times = re.compile(r"_created|_seconds_sum|_timestamp_seconds\{")
    return [line for line in client.page().splitlines() if not times.search(line)]


async def test_metrics_are_bentomls_by_route(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = instruments.RunnerTrafficMetricsMiddleware
    monkeypatch.setattr(instruments, "RunnerTrafficMetricsMiddleware", plain)  # put back afterwards
    http_metrics.install()
    found = await page_after(instruments.RunnerTrafficMetricsMiddleware, REQUESTS)
    labels = [(http_metrics.endpoint(path), status) for path, status in REQUESTS]
    assert found == await page_after(plain, labels)
    assert sum("request_total{" in line for line in found) == 3


async def test_in_progress_ends_with_the_request() -> None:
    client = Registered()

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        assert re.search(r'request_in_progress\{endpoint="/".*\} 1.0', client.page())
        raise ConnectionResetError

    app = http_metrics.TrafficMetrics(failing, namespace="test")
    app._setup(metrics_client=client, duration_buckets=(60.0,))
    with pytest.raises(ConnectionResetError):
        await app({"type": "http", "path": "/"}, None, None)  # type: ignore[arg-type]
    assert re.search(r'request_in_progress\{endpoint="/".*\} 0.0', client.page())


async def test_what_is_no_request_passes() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    middleware: Any = http_metrics.TrafficMetrics(app, namespace="test")
    middleware._setup(metrics_client=Registered(), duration_buckets=(60.0,))
    await middleware({"type": "lifespan", "path": ""}, None, None)
    await middleware({"type": "http", "path": "/metrics"}, None, None)
    assert seen == ["lifespan", "http"]
