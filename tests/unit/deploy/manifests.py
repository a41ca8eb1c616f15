"""The files of deploy/k8s as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
K8S = ROOT / "deploy" / "k8s"


def document(path: str) -> dict[str, Any]:
    (found,) = yaml.safe_load_all((K8S / path).read_text())
    return dict(found)


def settings(folder: str = "base") -> dict[str, str]:
    """The ConfigMap's variables."""
    lines = (K8S / folder / "settings.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def pod() -> dict[str, Any]:
    return dict(document("base/deployment.yaml")["spec"]["template"]["spec"])


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return dict(found)
