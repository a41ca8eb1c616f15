"""The service as an object of another's process, where BentoML starts nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import bentoml
import pytest

from pythia_bento import catalog
from pythia_bento.server.bentoml import packaging
from pythia_bento.service import Pythia
from pythia_bento.settings import load_settings
from tests.unit.deploy.manifests import document
from tests.unit.deploy.test_manifests import size


@pytest.fixture
def pythia() -> Any:
    return Pythia()  # type: ignore[operator]


async def test_calls_without_a_model_raise_what_bentoml_knows(pythia: Any) -> None:
    refused = pytest.raises(bentoml.exceptions.BentoMLException, match="is not loaded")
    with refused as caught:
        await pythia.generate(prompt="a")
    assert caught.value.error_code == 503
    with refused:
        [event async for event in pythia.generate_stream(prompt="a")]
    with refused:
        await pythia.score(items=[{"prompt": "a"}])


# In processes of their own, on a machine that seems to have a GPU: what takes long to import is
# imported once, and the service, which reads its settings then, in a copy for each device.
CONFIGURED = """
import json, os, sys
import bentoml, pynvml, pythia_bento.runtime.runner
pynvml.nvmlInit, pynvml.nvmlDeviceGetCount = (lambda: None), (lambda: 1)
for device in sys.argv[1:]:
    if not os.fork():
        os.environ["PYTHIA_DEVICE"] = device
        from pythia_bento.service import Pythia
        print(json.dumps([Pythia.config["resources"], Pythia.config["traffic"]]), flush=True)
        os._exit(0)
    if status := os.waitstatus_to_exitcode(os.wait()[1]):
        sys.exit(status)
"""


def test_what_a_bento_asks_for_is_said_by_its_settings() -> None:
    resources: dict[str, Any] = {
        "auto": {},
        "cpu": {"cpu": "2", "memory": "1536Mi"},
        "cuda": {"cpu": "4", "memory": "8192Mi", "gpu": 1},
    }
    settings = {"PYTHIA_MAX_BATCH_SIZE": "17", "PYTHIA_REQUEST_TIMEOUT": "40"}
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED, *resources],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    traffic = {"timeout": 100.0, "concurrency": 17}
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said == [[asked, traffic] for asked in resources.values()]


@pytest.mark.parametrize(
    ("device", "path"), [("cpu", "base/deployment.yaml"), ("cuda", "overlays/gpu/deployment.yaml")]
)
def test_a_bento_has_the_room_of_a_pod_or_what_its_model_needs(device: str, path: str) -> None:
    (pod,) = document(path)["spec"]["template"]["spec"]["containers"]
    asked = pod["resources"]["requests"]
    room = packaging.room(load_settings({"device": device}))
    assert room["cpu"] == asked["cpu"] and size(room["memory"]) == size(asked["memory"])
    large = packaging.room(load_settings({"device": device, "model": "pythia-12b@step0"}))
    assert size(large["memory"]) > catalog.int8_bytes(catalog.config("pythia-12b"))
    two = packaging.room(load_settings({"device": "cuda", "devices": "0,1"}))
    assert (two["cpu"], size(two["memory"])) == ("8", 2 * size("8Gi"))
    assert packaging.room(load_settings({"device": "cuda", "devices": "auto"}))["cpu"] == "4"


def test_settings_are_declared_with_the_values_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_MAX_QUEUE", "7")  # whoever set it is asked again when it is served
    monkeypatch.setenv("PYTHIA_API_KEYS", "alice a-key-of-this-test-only")
    settings = load_settings({"model": "elsewhere", "manage_models": True})
    declared = {env["name"]: env["value"] for env in packaging.declared(settings)}
    told = {"PYTHIA_MODEL": "elsewhere", "PYTHIA_MANAGE_MODELS": "true", "PYTHIA_DEVICE": "auto"}
    assert told.items() <= declared.items()
    assert all(declared.values())  # what has none BentoML would demand
    assert not {"PYTHIA_MAX_QUEUE", "PYTHIA_API_KEYS", "PYTHIA_KV_CACHE_GB"} & declared.keys()
    for name, value in declared.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_clients_are_told_of_no_stream_that_they_cannot_read() -> None:
    routes = {route["name"]: route for route in Pythia.schema()["routes"]}  # type: ignore[attr-defined]
    assert set(routes) == {"generate", "generate_stream", "score"}
    assert routes["generate_stream"]["output"]["is_stream"]
    whole, parts = (routes[name]["input"]["properties"] for name in ("generate", "generate_stream"))
    assert whole.pop("logits") and "logits" not in parts  # which come whole or not at all
    assert whole == parts and "stream" not in whole
