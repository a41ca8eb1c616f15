"""What `make sbom` asks an image for. The bill itself is made and checked by `make k8s-check`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.tools import TOOLS, tool

inventory = tool("image_inventory")


@pytest.mark.needs("dpkg-query")
def test_it_runs_from_standard_input_with_nothing_but_python() -> None:
    source = (TOOLS / "image_inventory.py").read_text()
    done = subprocess.run(
        [sys.executable, "-"], input=source, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert {"name": "torch", "version": version("torch")}.items() <= {
        key: value
        for each in found["python"]
        if each["name"] == "torch"
        for key, value in each.items()
    }.items()
    assert found["os"]["ID"]


def test_weights_are_named_with_their_hash(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_bytes(b"{}")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert inventory.weights(tmp_path) == [{"path": "models/m/model.safetensors", "sha256": digest}]
