"""The real metrics page against Prometheus' own checks, and against everything that reads it."""

from __future__ import annotations

import pytest

from pythia_bento.client import Client
from tests.e2e.serving import HTTP, Server
from tests.promtool import check_metrics
from tests.unit.deploy.metric_names import asked_for


@pytest.fixture(scope="module")
def page(server: Server) -> str:
    """After a request over HTTP and one over gRPC: families appear with their first call."""
    for url in (server.url, f"grpc://127.0.0.1:{server.grpc_port}"):
        with Client(url) as client:
            client.generate("Once upon a time", max_tokens=4)
    return HTTP.get(f"{server.url}/metrics").text


@pytest.mark.needs("promtool")
def test_promtool_finds_nothing_wrong(page: str) -> None:
    check_metrics(page)


def test_every_series_that_rules_dashboard_and_autoscaler_name_is_there(page: str) -> None:
    samples = {line.split("{")[0].split(" ")[0] for line in page.splitlines() if line[:1] != "#"}
    missing = {path: names - samples for path, names in asked_for().items() if names - samples}
    assert not missing
