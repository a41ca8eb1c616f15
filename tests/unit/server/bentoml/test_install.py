"""The order of layers, what is done where one of BentoML's is missing, and whom all of it binds."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import bentoml
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from pythia_bento.server.access.control import BodyRoom
from pythia_bento.server.bentoml import install
from pythia_bento.server.bentoml.internals import MissingInternal
from pythia_bento.server.http import openai
from pythia_bento.server.http.access import AccessMiddleware
from pythia_bento.server.http.body import RequestMiddleware
from pythia_bento.server.http.cors import cors
from pythia_bento.server.http.packed import Packed
from pythia_bento.settings import Settings
from tests.unit.server.bentoml.test_http_metrics import Registered

ROOT = Path(__file__).parents[4]
CONTEXT = "ContextMiddleware"
MOUNTS = [(openai.create_app(), "/v1")]


CORS = {"enabled": True, "access_control_allow_origins": ["*"]}


@bentoml.service(name="plain", traffic={"max_concurrency": 9}, http={"cors": CORS})
class Plain:
    @bentoml.api
    def echo(self, text: str) -> str:
        return text


Plain.add_asgi_middleware(CORSMiddleware, **cors(Settings(cors_origins="*")))
Plain.add_asgi_middleware(AccessMiddleware, access=None)
Plain.add_asgi_middleware(RequestMiddleware, max_body_bytes=1, room=BodyRoom(1), client_timeout=1)
Plain.add_asgi_middleware(Packed)


@bentoml.service(name="quiet", metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Quiet:
    @bentoml.api
    def echo(self, text: str) -> str:
        return text


@pytest.fixture(autouse=True)
def container() -> Iterator[None]:
    """BentoML's own things, made anew for each test."""
    BentoMLContainer.metrics_client.set(Registered())
    BentoMLContainer.tracer_provider.reset()
    config = deepcopy(BentoMLContainer.config.get())
    yield
    BentoMLContainer.config.set(config)
    BentoMLContainer.metrics_client.reset()
    BentoMLContainer.tracer_provider.reset()


@pytest.fixture
def theirs() -> list[Middleware]:
    """BentoML's layers around a service that has ours of its public kind."""
    return list(Plain.to_asgi().user_middleware)


def names(layers: list[Middleware]) -> list[str]:
    return [layer.cls.__name__ for layer in layers]


def documented() -> list[str]:
    """The layers of the module's docstring; the first is the protocol's, the last has no name."""
    text = (install.__doc__ or "").partition("\n7 to 10")[0]
    lines = re.findall(r"^\d+\. (.*)$", text, re.MULTILINE)
    return [name for line in lines for name in re.findall(r"\w+(?=``)|\w+Middleware(?!\])", line)]


def test_layers_have_the_order_that_the_document_says(theirs: list[Middleware]) -> None:
    found = ["BoundedHttp", *names(install.layers(theirs, MOUNTS))]
    assert found == documented()


def test_layers_of_bentoml_that_are_switched_off_stay_off() -> None:
    found = names(install.layers(Quiet.to_asgi().user_middleware, MOUNTS))
    assert found == ["RequestSpans", "Calls", "TimeLimit", "InnerCalls", "DirectRoutes", CONTEXT]


@pytest.mark.parametrize("name", ["METRICS", "ACCESS_LOG", "TIME_LIMIT"])
def test_without_what_is_needed_there_are_no_layers(
    theirs: list[Middleware], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = getattr(install, name)
    without = [layer for layer in theirs if layer.cls.__name__ != path.partition(":")[2]]
    with pytest.raises(MissingInternal, match=rf"bentoml \S+ has no layer {re.escape(path)}"):
        install.layers(without, MOUNTS)
    monkeypatch.setattr(install, name, f"{path}Gone")
    BentoMLContainer.metrics_client.set(Registered())
    with pytest.raises(MissingInternal, match=rf"bentoml \S+ has no {re.escape(path)}Gone"):
        install.layers(theirs, MOUNTS)


def test_without_what_is_only_faster_requests_go_bentomls_way(
    theirs: list[Middleware], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    for name in ("SPANS", "CONTEXT"):
        monkeypatch.setattr(install, name, f"{getattr(install, name)}Gone")
    found = install.layers(theirs, MOUNTS)
    assert names(found)[:4] == ["HttpMetrics", "Calls", "OpenTelemetryMiddleware", "AccessLog"]
    assert found[2].cls is OpenTelemetryMiddleware
    assert "DirectRoutes" not in names(found)
    assert names(found)[-1] == "InnerCalls"
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(": ")[2] for line in lines] == [
        "each event of a stream is a span",
        "requests are routed by BentoML",
    ]


@pytest.mark.parametrize("path", install.NEEDED)
def test_a_service_is_not_made_without_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(install, "NEEDED", (f"{path}Gone",))
    with pytest.raises(MissingInternal, match=re.escape(f"{path}Gone")):
        install.service_class("text")


# Runs in a process of its own: what a process that serves has for all that it serves stays.
BOUND = """
import logging, sys
import bentoml, prometheus_client.values, uvicorn.config
from _bentoml_impl.server.serving import server_on_deployment
from bentoml._internal.configuration.containers import BentoMLContainer

def process():
    logger = logging.getLogger("bentoml._internal.server.http_app")
    return (
        uvicorn.config.HTTP_PROTOCOLS["auto"], prometheus_client.values.ValueClass,
        len(logger.filters), BentoMLContainer.metrics_client.get().multiproc,
        type(BentoMLContainer.tracer_provider.get().sampler),
        [type(handler.formatter) for handler in logging.getLogger().handlers],
        sys.excepthook,
    )

def classes(service):
    return [layer.cls.__module__ for layer in service.to_asgi().user_middleware]

@bentoml.service(name="other")
class Other:
    @bentoml.api
    def echo(self, text: str) -> str:
        return text

logging.basicConfig()
sys.argv[0] = "bentoml"
before, theirs = process(), classes(Other)
from pythia_bento.service import Pythia

@bentoml.service(name="gateway")
class Gateway:
    pythia = bentoml.depends(Pythia)

assert process() == before, "importing the service changed the process"
assert classes(Other) == theirs
server_on_deployment(Gateway)
server_on_deployment(Pythia)
assert classes(Gateway) == theirs
assert process() == before, "depending on the service changed the process"
assert Pythia.import_string == "pythia_bento.service:Pythia"
ours = classes(Pythia)
assert sum(module.startswith("pythia_bento.") for module in ours) == 10, ours
assert all(now != then for now, then in zip(process(), before))
assert classes(Other) == theirs, "another service of the process has our layers"
"""


def test_importing_the_service_changes_no_other(tmp_path: Any) -> None:
    environment = {"PYTHIA_LOG_FORMAT": "json", "PYTHIA_MODEL": "bundled", "HOME": str(tmp_path)}
    environment["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path)  # as BentoML's workers have it
    done = subprocess.run(
        [sys.executable, "-c", BOUND], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("workers", [1, 2, "cpu_count"])
def test_one_worker_is_all_there_may_be(workers: Any, capsys: pytest.CaptureFixture[str]) -> None:

    @bentoml.service(name="many", service_class=install.service_class("text"), workers=workers)
    class Many:
        @bentoml.api
        def echo(self, text: str) -> str:
            return text

    Many.inject_config()
    if workers == 1:
        return install._check_alone("many")
    with pytest.raises(SystemExit):
        Many.to_asgi()
    sentence = f"the service many has one worker, which batches for all, and workers is {workers};"
    assert sentence in capsys.readouterr().err
