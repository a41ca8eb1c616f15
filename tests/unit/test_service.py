"""The service as an object of another's process, where BentoML starts nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import bentoml
import pytest

from pythia_bento.service import Pythia


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


# In a process of its own, on a machine that seems to have a GPU.
CONFIGURED = """
import json, pynvml
pynvml.nvmlInit, pynvml.nvmlDeviceGetCount = (lambda: None), (lambda: 1)
from pythia_bento.service import Pythia
print(json.dumps([Pythia.config["resources"], Pythia.config["traffic"]]))
"""


@pytest.mark.parametrize(("device", "resources"), [("auto", {}), ("cpu", {}), ("cuda", {"gpu": 1})])
def test_what_a_bento_asks_for_is_said_by_its_settings(device: str, resources: Any) -> None:
    settings = {"PYTHIA_DEVICE": device, "PYTHIA_MAX_BATCH_SIZE": "17"}
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED],
        env=os.environ | settings | {"PYTHIA_REQUEST_TIMEOUT": "40"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [resources, {"timeout": 100.0, "concurrency": 17}]


def test_clients_are_told_of_no_stream_that_they_cannot_read() -> None:
    routes = {route["name"]: route for route in Pythia.schema()["routes"]}  # type: ignore[attr-defined]
    assert set(routes) == {"generate", "generate_stream", "score"}
    assert routes["generate_stream"]["output"]["is_stream"]
    inputs = [routes[name]["input"]["properties"] for name in ("generate", "generate_stream")]
    assert inputs[0] == inputs[1] and "stream" not in inputs[0]
