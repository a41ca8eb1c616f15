"""The KServe examples by the models of KServe's own package, and their pod by Kubernetes' schema.

python -m deploy.kserve.check    in the environment of `make k8s-check`. The package's models are
read and not imported: they would bring a server and its dependencies.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import yaml

HERE = Path(__file__).parent
PLAIN: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "object": dict}
PREFIXES = {"serving.kserve.io/v1alpha1": "V1alpha1", "serving.kserve.io/v1beta1": "V1beta1"}

Document = dict[str, Any]


class Model(NamedTuple):
    """Types by the names of fields, and fields that must be there."""

    types: dict[str, str]
    required: set[str]


def main() -> None:
    """Raise AssertionError, or jsonschema's error, for what is wrong."""
    runtime, service = (
        yaml.safe_load((HERE / f"{name}.yaml").read_text())
        for name in ("clusterservingruntime", "inferenceservice")
    )
    for document in (runtime, service):
        _check(document, PREFIXES[document["apiVersion"]] + document["kind"])
    for broken in (_without(service, "modelFormat"), _misspelt(service)):
        try:
            _check(broken, "V1beta1InferenceService")
        except AssertionError:
            continue
        raise AssertionError("a wrong InferenceService was accepted")
    kubernetes_validate.validate(_pod(runtime, service), "1.37", strict=True)


def _check(value: Any, kind: str, at: str = "") -> None:
    """Raise AssertionError, with its place, for what a model does not have."""
    if inner := re.fullmatch(r"list\[(.*)\]", kind):
        assert isinstance(value, list), at
        for index, each in enumerate(value):
            _check(each, inner[1], f"{at}[{index}]")
    elif inner := re.fullmatch(r"dict\(str, (.*)\)", kind):
        for key, each in value.items():
            _check(each, inner[1], f"{at}.{key}")
    elif kind in PLAIN:
        assert isinstance(value, PLAIN[kind]), f"{at} is no {kind}"
    elif model := _models().get(kind):
        unknown, missing = value.keys() - model.types.keys(), model.required - value.keys()
        assert not unknown and not missing, f"{at or kind}: unknown {unknown}, missing {missing}"
        for key, each in value.items():
            _check(each, model.types[key], f"{at}.{key}")
    # What is left is Kubernetes' own, which `_pod` is checked for, or a quantity.


@cache
def _models() -> dict[str, Model]:
    [folder] = importlib.util.find_spec("kserve").submodule_search_locations  # type: ignore
    found = {}
    for path in Path(folder, "models").glob("v1*.py"):
        text = path.read_text()
        for part in ast.parse(text).body:
            if isinstance(part, ast.ClassDef):
                found[part.name] = _model(part, text)
    return found


def _model(part: ast.ClassDef, text: str) -> Model:
    said = {
        each.targets[0].id: ast.literal_eval(each.value)
        for each in part.body
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
    }
    names = said["attribute_map"]
    needed = re.findall(r"Invalid value for `(\w+)`, must not be `None`", text)
    types = {names[name]: kind for name, kind in said["openapi_types"].items()}
    return Model(types, {names[name] for name in needed})


def _without(service: Document, field: str) -> Document:
    copy: Document = yaml.safe_load(yaml.safe_dump(service))
    del copy["spec"]["predictor"]["model"][field]
    return copy


def _misspelt(service: Document) -> Document:
    copy: Document = yaml.safe_load(yaml.safe_dump(service))
    copy["spec"]["predictor"]["minReplica"] = 1
    return copy


def _pod(runtime: Document, service: Document) -> Document:
    """What KServe makes of both: the runtime's container with what the model adds."""
    predictor = dict(service["spec"]["predictor"])
    added = predictor.pop("model")
    [container] = runtime["spec"]["containers"]
    joined = {key: container[key] + added.pop(key) for key in ("env", "volumeMounts")}
    of_kserve = _models()["V1beta1ModelSpec"].types
    assert set(added) <= {"modelFormat", "runtime"} <= of_kserve.keys()
    spec = {key: each for key, each in predictor.items() if key in POD_FIELDS}
    spec["volumes"] = runtime["spec"]["volumes"] + predictor["volumes"]
    spec["containers"] = [container | joined]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pythia"}, "spec": spec}


# Of the predictor's fields, those of a pod.
POD_FIELDS = {
    "terminationGracePeriodSeconds",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "securityContext",
    "volumes",
}

if __name__ == "__main__":
    main()
    print("the runtime, the service and their pod are valid")
