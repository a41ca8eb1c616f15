"""The chart, the routes and the KServe example against the service.

What the chart renders is `make k8s-check`'s: it needs Helm's library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pythia_bento import __version__
from pythia_bento.settings import Settings
from tests.unit.deploy.manifests import K8S, ROOT, container, document, pod, settings
from tests.unit.deploy.metric_names import scaling_queries
from tests.unit.deploy.test_alerts import promtool

CHART = ROOT / "deploy" / "helm" / "pythia-bento"
KSERVE = ROOT / "deploy" / "kserve"


def loaded(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def schema() -> dict[str, Any]:
    return dict(json.loads((CHART / "values.schema.json").read_text()))


def test_the_chart_reads_the_files_of_kustomize_themselves() -> None:
    links = {path.name: path.resolve() for path in (CHART / "files").iterdir()}
    names = ("base", "components", "overlays")
    assert links == {name: (K8S / name).resolve() for name in names}


def test_the_chart_has_the_version_of_the_service() -> None:
    chart = loaded(CHART / "Chart.yaml")
    assert chart["version"] == chart["appVersion"] == __version__


def test_the_chart_takes_every_setting_but_secrets_and_those_with_values_of_their_own() -> None:
    values = schema()["properties"]
    own = {"model", "models", "pinned"}
    assert own <= values.keys()
    taken = {
        f"PYTHIA_{name.upper()}" for name in Settings.model_fields if name not in own | {"api_keys"}
    }
    assert values["settings"]["properties"].keys() == taken


def test_the_schema_has_each_value_and_no_other() -> None:
    assert_described(loaded(CHART / "values.yaml"), schema(), optional={"global", "nameOverride"})


def assert_described(
    values: dict[str, Any],
    described: dict[str, Any],
    optional: set[str] = frozenset(),  # type: ignore[assignment]
) -> None:
    assert described["additionalProperties"] is False
    assert values.keys() == described["properties"].keys() - optional
    for name, value in values.items():
        inner = described["properties"][name]
        if isinstance(value, dict) and inner.get("properties") and name != "settings":
            assert_described(value, inner)


def test_values_are_the_manifests_own() -> None:
    values = loaded(CHART / "values.yaml")
    (volume,) = (each["secret"] for each in pod()["volumes"] if "secret" in each)
    assert values["apiKeys"] == {"secret": volume["secretName"], "key": volume["items"][0]["key"]}
    assert values["replicas"] == document("base/deployment.yaml")["spec"]["replicas"]


def test_routes_lead_to_the_service_and_outlast_its_own_limit() -> None:
    ports = {each["name"]: each["port"] for each in document("base/service.yaml")["spec"]["ports"]}
    for kind in ("http", "grpc"):
        [rule] = document(f"components/gateway/{kind}route.yaml")["spec"]["rules"]
        assert rule["backendRefs"] == [{"name": "pythia", "port": ports[kind]}]
    [rule] = document("components/gateway/httproute.yaml")["spec"]["rules"]
    limit = int(rule["timeouts"]["request"].removesuffix("s"))
    assert limit > float(settings()["PYTHIA_REQUEST_TIMEOUT"])


def test_the_grpc_route_has_every_service_that_is_served() -> None:
    from pythia_bento.server.grpc.interceptors import SERVICES

    [rule] = document("components/gateway/grpcroute.yaml")["spec"]["rules"]
    names = {match["method"]["service"] for match in rule["matches"]}
    others = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert names == set(SERVICES) | others


@pytest.mark.needs("promtool")
def test_prometheus_can_read_what_autoscalers_ask(tmp_path: Path) -> None:
    rules = [{"record": f"scaler:{name}", "expr": query} for name, query in scaling_queries()]
    group = {"groups": [{"name": "scalers", "rules": rules}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(group))
    done = promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_kserve_runs_the_container_of_the_deployment() -> None:
    ours = container()
    [theirs] = loaded(KSERVE / "clusterservingruntime.yaml")["spec"]["containers"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe", "resources", "volumeMounts"):
        assert theirs[name] == ours[name], name
    user = {"runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile"}  # of the pod there
    of_pod = {name: each for name, each in pod()["securityContext"].items() if name in user}
    assert theirs["securityContext"] == ours["securityContext"] | of_pod
    assert theirs["image"] == f"pythia-bento:{__version__}-cpu"


def test_kserve_s_grace_outlasts_drain_and_longest_request() -> None:
    runtime = loaded(KSERVE / "clusterservingruntime.yaml")["spec"]
    service = loaded(KSERVE / "inferenceservice.yaml")["spec"]["predictor"]
    [container] = runtime["containers"]
    told = {each["name"]: each["value"] for each in container["env"]}
    longest = Settings.model_fields["request_timeout"].default
    drain = float(told["PYTHIA_DRAIN_SECONDS"])
    assert service["terminationGracePeriodSeconds"] > longest + drain
    [formats] = runtime["supportedModelFormats"]
    assert service["model"]["modelFormat"]["name"] == formats["name"]
    names = {each["name"] for each in container["env"] + service["model"]["env"]}
    known = {f"PYTHIA_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in names if name.startswith("PYTHIA_")} <= known
