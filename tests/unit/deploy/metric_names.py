"""The series that the monitoring files ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.unit.deploy.manifests import K8S, document

SERIES = re.compile(r"\b(?:pythia|bentoml)_[a-z0-9_]+\b")
MONITORING = K8S / "overlays" / "monitoring"
AUTOSCALE = K8S / "components" / "autoscale"


def dashboard() -> dict[str, Any]:
    return dict(json.loads((MONITORING / "dashboard.json").read_text()))


def dashboard_expressions() -> list[str]:
    """Of the panels, with Grafana's variables filled in."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    values = {"$namespace": "ns", "$pod": "a", "$__rate_interval": "5m"}
    for variable, value in values.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


def asked_for() -> dict[str, set[str]]:
    """Names by the file that has them."""
    return {path: set(SERIES.findall(text)) for path, text in _texts()}


def scaling_queries() -> Iterator[tuple[str, str]]:
    """What KEDA asks, for us and for KServe."""
    [trigger] = document("components/keda/scaledobject.yaml")["spec"]["triggers"]
    yield "keda", trigger["metadata"]["query"]
    [service] = yaml.safe_load_all((K8S.parent / "kserve" / "inferenceservice.yaml").read_text())
    [metric] = service["spec"]["predictor"]["autoScaling"]["metrics"]
    yield "kserve", metric["external"]["metric"]["query"]


def _texts() -> Iterator[tuple[str, str]]:
    variables = [str(each.get("query")) for each in dashboard()["templating"]["list"]]
    yield "dashboard", "\n".join(dashboard_expressions() + variables)
    groups = document("overlays/monitoring/prometheusrule.yaml")["spec"]["groups"]
    yield "rules", "\n".join(rule["expr"] for group in groups for rule in group["rules"])
    yield "autoscaler", (AUTOSCALE / "horizontalpodautoscaler.yaml").read_text()
    yield from scaling_queries()
    yield "adapter", (AUTOSCALE / "adapter-values.yaml").read_text()
