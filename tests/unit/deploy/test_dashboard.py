"""The dashboard, the autoscaler and what they ask Prometheus."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.unit.deploy.manifests import document
from tests.unit.deploy.metric_names import AUTOSCALE, asked_for, dashboard, dashboard_expressions
from tests.unit.deploy.test_alerts import promtool


@pytest.mark.needs("promtool")
def test_prometheus_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(dashboard_expressions())
    ]
    group = {"groups": [{"name": "dashboard", "rules": rules}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(group))
    done = promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any("$" in expression for expression in dashboard_expressions())


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [
        (place["x"] + dx, place["y"] + dy)
        for place in places
        for dx in range(place["w"])
        for dy in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)


def test_the_autoscaler_asks_for_what_the_adapter_serves() -> None:
    scaler = document("components/autoscale/horizontalpodautoscaler.yaml")["spec"]
    (metric,) = scaler["metrics"]
    (rule,) = yaml.safe_load((AUTOSCALE / "adapter-values.yaml").read_text())["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert rule["seriesQuery"].startswith(rule["name"]["as"] + "{")
    assert scaler["scaleTargetRef"]["name"] == document("base/deployment.yaml")["metadata"]["name"]


def test_each_file_asks_for_something() -> None:
    assert all(asked_for().values()), asked_for()


def test_the_monitor_scrapes_the_service_where_metrics_are() -> None:
    (endpoint,) = document("overlays/monitoring/servicemonitor.yaml")["spec"]["endpoints"]
    ports = {port["name"] for port in document("base/service.yaml")["spec"]["ports"]}
    assert endpoint["port"] in ports
    assert endpoint["path"] == "/metrics"
