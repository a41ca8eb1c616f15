"""deploy/bentocloud by BentoML's own reading of such files."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from bentoml._internal.cloud.deployment import DeploymentAPI
from bentoml._internal.cloud.schemas.schemasv2 import CreateDeploymentSchema
from bentoml._internal.configuration.v2 import _SERVICE_CONFIG
from bentoml._internal.utils.cattr import bentoml_cattr
from schema import Schema  # which BentoML checks its configuration with

from pythia_bento.settings import BATCH_SIZE, Settings
from tests.unit.deploy.manifests import ROOT

FOLDER = ROOT / "deploy" / "bentocloud"
NAMES = {"cpu": "cpu", "gpu": "cuda"}


def said(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))


def service(name: str) -> dict[str, Any]:
    [found] = said(name)["services"].items()
    assert found[0] == "pythia"
    return dict(found[1])


def test_there_is_one_for_each_device() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == NAMES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_bentoml_understands_every_word(name: str) -> None:
    read = bentoml_cattr.structure(said(name), CreateDeploymentSchema)
    DeploymentAPI._fix_and_validate_schema(read)
    # What it does not know it leaves out, without a word.
    kept = bentoml_cattr.unstructure(read)
    assert kept.pop("access_authorization", False) is False
    assert kept | {"access_authorization": False} == said(name)


def test_control_a_misspelt_word_is_left_out() -> None:
    wrong = said("cpu")
    wrong["services"]["pythia"]["scalling"] = {"min_replicas": 1}
    read = bentoml_cattr.structure(wrong, CreateDeploymentSchema)
    assert bentoml_cattr.unstructure(read) != wrong


@pytest.mark.parametrize("name", NAMES)
def test_what_it_overrides_is_configuration(name: str) -> None:
    Schema(_SERVICE_CONFIG).validate(service(name)["config_overrides"])


@pytest.mark.parametrize(("name", "device"), NAMES.items())
def test_it_scales_on_what_a_replica_does_at_a_time(name: str, device: str) -> None:
    traffic = service(name)["config_overrides"]["traffic"]
    envs = {each["name"]: each["value"] for each in service(name)["envs"]}
    assert traffic["concurrency"] == int(envs["PYTHIA_MAX_BATCH_SIZE"]) == BATCH_SIZE[device]
    assert traffic["timeout"] > Settings.model_fields["request_timeout"].default
    assert ("gpu" in service(name)["config_overrides"].get("resources", {})) == (device == "cuda")


@pytest.mark.parametrize("name", NAMES)
def test_its_environment_is_of_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in service(name)["envs"]:
        assert each["name"].removeprefix("PYTHIA_").lower() in Settings.model_fields
        monkeypatch.setenv(each["name"], each["value"])
    assert Settings().grpc_port == 0


@pytest.mark.parametrize(("name", "device"), NAMES.items())
def test_the_command_that_it_names_builds_for_its_device(name: str, device: str) -> None:
    first = (FOLDER / f"{name}.yaml").read_text().splitlines()[0]
    command = f"bentoml deploy --config-file deploy/bentocloud/{name}.yaml --arg device={device}"
    assert first == f"# {command}"
