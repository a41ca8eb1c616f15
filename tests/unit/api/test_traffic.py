from __future__ import annotations

from typing import Any

import pytest
from bentoml._internal.server.http import instruments

from pythia_bento.api import traffic
from pythia_bento.api.description.operations import OPERATIONS


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
    assert traffic.endpoint(path) == label


def test_every_operation_has_its_own() -> None:
    for operation in OPERATIONS:
        path = operation.path.replace("{id}", "some-model")
        assert traffic.endpoint(path) == operation.path


async def test_bentoml_counts_the_route_and_the_application_sees_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, str]] = []

    async def counting(self: Any, scope: Any, receive: Any, send: Any) -> None:
        label = scope["path"]
        await self.app(scope, receive, send)
        seen[-1] += (label,)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope.get("path"),))  # type: ignore[arg-type]

    plain = instruments.RunnerTrafficMetricsMiddleware
    monkeypatch.setattr(instruments, "RunnerTrafficMetricsMiddleware", plain)  # put back afterwards
    monkeypatch.setattr(plain, "__call__", counting)
    traffic.install()
    middleware: Any = instruments.RunnerTrafficMetricsMiddleware(app, namespace="test")
    await middleware({"type": "http", "path": "/v1/models/x"}, None, None)
    await middleware({"type": "http", "path": "/made-up"}, None, None)
    await middleware({"type": "lifespan", "path": ""}, None, None)
    assert seen == [("/v1/models/x", "/v1/models/{id}"), ("/made-up", "other"), ("", "")]
