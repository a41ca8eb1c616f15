"""The chart by Helm's own library: it lints, keeps to its schemas, and says what kustomize says.

python -m deploy.helm.check FOLDER    in the environment of requirements/k8s.txt; the folder is for
what kustomize reads. Both are made of the files of deploy/k8s: the chart reads them through the
links in pythia-bento/files.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import yaml
from helm_python import HelmError
from helm_python.chart import Chart, lint, package

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "pythia-bento"
K8S = ROOT / "deploy" / "k8s"
KUBECTL = os.environ.get("KUBECTL", "kubectl")
CRDS = ("keda.sh", "gateway.networking.k8s.io", "monitoring.coreos.com")  # groups without schemas

# What Helm adds for itself, and the ends of names that tell versions of a thing apart.
HELMS = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart")
NOTES = ("checksum/settings", "helm.sh/resource-policy")
VERSIONED = re.compile(r"^(pythia-settings)-[a-z0-9]{10}$|^(pythia-pull)-[0-9a-f]{8}$")

Document = dict[str, Any]


class Case(NamedTuple):
    """Values, and the kustomization that says the same."""

    values: dict[str, Any]
    resources: list[str]
    components: tuple[str, ...] = ()


PULLED = {"model": "pythia-160m-deduped", "enabled": True}
SERVED = {"model": "pythia-160m-deduped@step143000", "models": "pythia-160m-deduped@*"}
ROUTES = {"http": True, "grpc": True}
CASES = {
    "the defaults": Case({}, ["overlays/cpu"]),
    "a GPU": Case({"device": "cuda"}, ["overlays/gpu"]),
    "the autoscaler": Case({"autoscaling": {"kind": "hpa"}}, ["overlays/autoscale"]),
    "KEDA": Case({"autoscaling": {"kind": "keda"}}, ["overlays/cpu"], ("keda",)),
    "the gRPC probe": Case(
        {"device": "cuda", "grpcProbe": True}, ["overlays/gpu"], ("grpc-probe",)
    ),
    "a volume": Case({"store": {"enabled": True}}, ["overlays/cpu"], ("store",)),
    "a Job that fills the volume": Case(
        {"store": {"enabled": True}, "pull": PULLED, **SERVED}, ["overlays/cpu"], ["store", "pull"]
    ),
    "the gateway": Case({"gateway": ROUTES}, ["overlays/cpu"], ("gateway",)),
    "each pod's metrics": Case(
        {"monitoring": {"scrape": "pod"}}, ["overlays/cpu"], ("podmonitor",)
    ),
    "monitoring": Case(
        {"monitoring": {"scrape": "service", "rules": True, "dashboard": True}},
        ["overlays/cpu", "overlays/monitoring"],
    ),
}
# With values of all kinds, for the schemas of Kubernetes and for what only the chart can say.
EVERYTHING = {
    "device": "cuda",
    "gpu": {"count": 2, "resource": "nvidia.com/mig-1g.18gb"},
    "image": {"digest": f"sha256:{'0' * 64}", "pullSecrets": [{"name": "registry"}]},
    "lock": "models: {}\n",
    "settings": {"PYTHIA_MAX_QUEUE": 7, "PYTHIA_MANAGE_MODELS": True},
    "store": {"enabled": True, "existingClaim": "mine", "storageClassName": "fast"},
    "pull": {**PULLED, "hook": True, "env": [{"name": "HF_ENDPOINT", "value": "http://hub"}]},
    "autoscaling": {"kind": "keda", "queueSeconds": 0.5},
    "gateway": {**ROUTES, "hostnames": ["pythia.example"], "namespace": "edge"},
    "monitoring": {"scrape": "pod", "rules": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"egress": [{"ports": [{"port": 4318}]}]},
    "nodeSelector": {"gpu": "h200"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule",
        }
    ],
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "podAnnotations": {"sidecar": "no"},
}
REFUSED: dict[str, dict[str, Any]] = {
    "replica": {"replica": 3},
    "device": {"device": "tpu"},
    "count": {"gpu": {"count": "one"}},
    "PYTHIA_MAX_QUEU": {"settings": {"PYTHIA_MAX_QUEU": 1}},
    "kind": {"autoscaling": {"kind": "vpa"}},
    "digest": {"image": {"digest": "latest"}},
    "steps": {"pull": {"steps": "every"}},
}


def main(folder: Path) -> None:
    """Each of the chart's promises, a line each; the first that is broken ends it."""
    with Chart.load(CHART) as chart:
        for name, case in CASES.items():
            ours, theirs = _rendered(chart, case.values), _built(folder, case)
            _same(ours, theirs)
            _valid(list(ours.values()))
            print(f"{name}: {len(ours)} documents, as kustomize builds them")
        _everything(chart)
        _packaged(chart, folder)
        for word, values in REFUSED.items():
            _refuses(chart, word, values)
    for values in ({}, EVERYTHING):
        report = lint(CHART, values, strict=True)
        worst = [each for each in report["messages"] if each["severity"] > 1]
        assert not worst and not report["errors"], report
    print(f"lint; {len(REFUSED)} wrong values are refused")


def _rendered(chart: Chart, values: dict[str, Any], name: str = "pythia") -> dict[str, Document]:
    files = chart.render(values, name=name, namespace="default")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return _by_name(document for text in texts for document in yaml.safe_load_all(text) if document)


def _built(folder: Path, case: Case) -> dict[str, Document]:
    to = os.path.relpath(K8S, folder)
    said: dict[str, Any] = {
        "resources": [f"{to}/{path}" for path in case.resources],
        "components": [f"{to}/components/{name}" for name in case.components],
    }
    if "pull" in case.components:  # an overlay names the image of its own resources alone
        said["images"] = [{"name": "pythia-bento", "newTag": "0.1.0-cpu"}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(said))
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return _by_name(yaml.safe_load_all(done.stdout))


def _by_name(documents: Any) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for document in documents:
        name = VERSIONED.sub(r"\1\2", document["metadata"]["name"])
        key = f"{document['kind']} {name}"
        assert key not in found, f"twice: {key}"
        found[key] = document
    return found


def _same(ours: dict[str, Document], theirs: dict[str, Document]) -> None:
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    for name in ours:
        mine, other = _bare(ours[name]), _bare(theirs[name])
        labels, theirs_too = (document["metadata"].pop("labels", {}) for document in (mine, other))
        assert theirs_too.items() <= labels.items(), name  # kustomize labels some, the chart all
        assert mine == other, f"{name}:\n{_difference(mine, other)}"


def _bare(part: Any) -> Any:
    """Without what Helm adds, and what tells versions apart."""
    if isinstance(part, dict):
        kept = {key: _bare(value) for key, value in part.items() if key not in HELMS + NOTES}
        return {key: value for key, value in kept.items() if value != {} or key == "podSelector"}
    if isinstance(part, list):
        return [_bare(each) for each in part]
    return VERSIONED.sub(r"\1\2", part) if isinstance(part, str) else part


def _difference(*documents: Document) -> str:
    mine, other = (yaml.safe_dump(document).splitlines() for document in documents)
    only = [f"chart: {line}" for line in mine if line not in other]
    return "\n".join(only + [f"kustomize: {line}" for line in other if line not in mine])


def _valid(documents: list[Document]) -> None:
    """For Kubernetes' own kinds."""
    for document in documents:
        if not document["apiVersion"].startswith(CRDS):
            kubernetes_validate.validate(document, "1.37", strict=True)


def _everything(chart: Chart) -> None:
    """What the chart alone can say is in what it renders, with another release's name."""
    found = _rendered(chart, EVERYTHING, name="other")
    _valid(list(found.values()))
    text = json.dumps(found)
    pod = found["Deployment other"]["spec"]["template"]["spec"]
    resources = pod["containers"][0]["resources"]["limits"]
    assert resources["nvidia.com/mig-1g.18gb"] == "2" and "nvidia.com/gpu" not in resources
    assert [each["topologyKey"] for each in pod["topologySpreadConstraints"]] == [
        "topology.kubernetes.io/zone"
    ]
    told = {"PYTHIA_MAX_QUEUE": "7", "PYTHIA_MANAGE_MODELS": "true", "PYTHIA_DEVICES": "auto"}
    assert told.items() <= found["ConfigMap other-settings"]["data"].items()
    assert "PersistentVolumeClaim other-store" not in found
    assert text.count('"claimName": "mine"') == text.count('"subPath": "pythia.lock"') == 2
    for name in ("high", "nvidia", "h200", "spot", "edge", "pythia.example", "registry", "4318"):
        assert f'"{name}"' in text or f" {name}" in text, name
    assert f"pythia-bento@sha256:{'0' * 64}" in text
    names = set(re.findall(r'"name": "(pythia[a-z-]*)"', text))
    assert names <= {"pythia", "pythia-hub"}, names  # the container's, and a Secret's
    _selected(found)


def _selected(found: dict[str, Document]) -> None:
    """Each selector finds the pods of this release, and no other's."""
    labels = found["Deployment other"]["spec"]["template"]["metadata"]["labels"]
    for name, document in found.items():
        for selector in _selectors(document.get("spec", {})):
            if "pull" not in name and "kubernetes.io/metadata.name" not in selector:
                assert selector.items() <= labels.items(), (name, selector)
                assert selector["app.kubernetes.io/instance"] == "other", (name, selector)


def _selectors(part: Any) -> Any:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "matchLabels" or (key == "selector" and "matchLabels" not in value):
                yield value
            else:
                yield from _selectors(value)
    for each in part if isinstance(part, list) else ():
        yield from _selectors(each)


def _packaged(chart: Chart, folder: Path) -> None:
    """As an archive, which has no links, it renders the same."""
    archive = package(CHART, destination=folder)
    with Chart.load(archive) as other:
        assert _rendered(other, EVERYTHING) == _rendered(chart, EVERYTHING)
    Path(archive).unlink()


def _refuses(chart: Chart, word: str, values: dict[str, Any]) -> None:
    try:
        chart.validate_schema(values)
    except HelmError as error:
        assert word in str(error), error
        return
    raise AssertionError(f"{values} was accepted")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    main(target)
