"""The built Bento: what is in it, which image it makes, and that it needs nothing else."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bentoml._internal.bento import BentoStore
from bentoml._internal.container import construct_containerfile

from pythia_bento.model.kernels.cpu import build as kernels
from pythia_bento.server.bentoml import packaging
from tests.e2e.offline import answer_offline
from tests.e2e.serving import (
    BENTOML,
    HTTP,
    ROOT,
    START_SECONDS,
    Server,
    environment,
    free_port,
    serve,
)
from tests.hub import HubServer
from tests.hub.places import bentoml_places
from tests.models import random_checkpoint

ROOM = {"cpu": "2", "memory": "1536Mi"}
REPO, MODEL = "EleutherAI/pythia-14m", "pythia-14m@step3000"
BODY = json.dumps(
    {"prompt": "Once upon a time", "max_tokens": 24, "seed": 3, "logprobs": 2, "n": 2}
)


class Bento:
    """A Bento in a store."""

    def __init__(self, home: Path, tag: str) -> None:
        self.tag = tag
        self.path = home / "bentos" / tag.replace(":", "/")
        self.dockerfile = (self.path / "env/docker/Dockerfile").read_text()
        self.requirements = (self.path / "env/python/requirements.txt").read_text()

    @property
    def info(self) -> dict[str, Any]:
        return yaml.safe_load((self.path / "bento.yaml").read_text())


def run(home: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**environment(home), **variables},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


def build_bento(home: Path, commands: Path, **arguments: str) -> Bento:
    options = (f"--arg={name}={value}" for name, value in arguments.items())
    done = run(home, f"{commands}/bentoml", "build", "--output", "tag", *options)
    assert done.returncode == 0, done.stderr
    return Bento(home, done.stdout.strip().removeprefix("__tag__:"))


@pytest.fixture(scope="module")
def bento(home: Path, commands: Path) -> Bento:
    return build_bento(home, commands, model="bundled", device="cpu")


@pytest.fixture(scope="module")
def gpu_bento(home: Path, commands: Path) -> Bento:
    return build_bento(home, commands, device="cuda")


@pytest.fixture(scope="module")
def commit(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """``MODEL`` pulled into the store."""
    root = tmp_path_factory.mktemp("hub")
    source = random_checkpoint(root / "source", heads=2, head_dim=16)
    with HubServer(root / "hub") as hub:
        commit = hub.folder.commit(REPO, "step3000", source)
        hub.folder.point(REPO, "main", commit)
        client = str(Path(sys.executable).parent / "pythia-bento")
        variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(root / "hf")}
        done = run(home, client, "pull", MODEL, **variables)
    assert done.returncode == 0, done.stderr
    return commit


def test_only_what_is_served_is_inside(bento: Bento) -> None:
    source = bento.path / "src"
    names = {path.name for path in source.iterdir()}
    assert names == {"LICENSE", "bentofile.yaml", "pythia.lock", "pythia_bento", "service.py"}
    suffixes = {path.suffix for path in source.rglob("*") if path.is_file()}
    assert suffixes <= {"", ".py", ".typed", ".json", ".jsonl", ".safetensors", ".cpp", ".h"} | {
        *(".so", ".cu", ".cuh", ".yaml", ".lock", ".proto", ".pyi", ".html", ".css", ".js", ".svg")
    }
    size = sum(path.stat().st_size for path in bento.path.rglob("*") if path.is_file())
    assert size < 40e6


def test_compiled_kernels_are_inside(bento: Bento) -> None:
    folder = bento.path / "src/pythia_bento/model/kernels/cpu/lib"
    assert {path.name for path in folder.iterdir()} >= {
        kernels.library(variant).name for variant in kernels.variants()
    }


@pytest.mark.parametrize("which", ["bento", "gpu_bento"])
def test_no_index_and_no_place_of_this_machine_is_named(
    which: str, request: pytest.FixtureRequest
) -> None:
    bento: Bento = request.getfixturevalue(which)
    for file in ("bento.yaml", "env/docker/Dockerfile", "env/python/requirements.txt"):
        text = (bento.path / file).read_text()
        assert "://" not in text
        assert not re.search(r"index-url|find-links|trusted-host", text)
        assert str(Path.home()) not in text.replace("/root/.cache", "")
    for path in filter(Path.is_file, bento.path.rglob("*")):  # compiled kernels too
        assert str(ROOT).encode() not in path.read_bytes(), path


@pytest.mark.parametrize("which", ["bento", "gpu_bento"])
def test_requirements_are_exact(which: str, request: pytest.FixtureRequest) -> None:
    bento: Bento = request.getfixturevalue(which)
    pins = re.split(r"^(?=[a-z0-9])", bento.requirements, flags=re.M)[1:]
    # BentoML repeats itself at the end, without a hash; the version is the locked one.
    assert pins[-1].strip() in {pin.splitlines()[0].rstrip(" \\") for pin in pins[:-1]}
    for pin in pins[:-1]:
        assert re.match(r"[\w.-]+==\S+ \\\n    --hash=sha256:", pin), pin[:200]


def test_cpu_image(bento: Bento) -> None:
    assert re.search(r"^torch==[\d.]+\+cpu ", bento.requirements, re.M)
    assert not re.search(r"^(nvidia-c|cuda|triton|transformers)", bento.requirements, re.M)
    assert "apt-get" not in bento.dockerfile
    assert bento.info["services"][0]["config"]["resources"] == ROOM


def test_gpu_image(gpu_bento: Bento) -> None:
    assert re.search(r"^torch==[\d.]+ ", gpu_bento.requirements, re.M)
    assert re.search(r"^triton==", gpu_bento.requirements, re.M)
    assert re.search(r"^nvidia-cublas==", gpu_bento.requirements, re.M)
    assert "install -y --no-install-recommends gcc libc6-dev" in gpu_bento.dockerfile
    assert "ENV TRITON_CACHE_DIR=" in gpu_bento.dockerfile
    assert gpu_bento.info["args"] == {"device": "cuda"}
    gpu_room = {"cpu": "4", "memory": "8192Mi", "gpu": 1}
    assert gpu_bento.info["services"][0]["config"]["resources"] == gpu_room


@pytest.mark.parametrize("which", ["bento", "gpu_bento"])
def test_dockerfile(which: str, request: pytest.FixtureRequest) -> None:
    bento: Bento = request.getfixturevalue(which)
    lines = bento.dockerfile.splitlines()
    assert [line for line in lines if line.startswith("FROM")] == [
        f"FROM python:{packaging.PYTHON}-slim AS base-container"
    ]
    assert "ARG BENTO_USER_UID=1034" in lines
    assert [line for line in lines if line.startswith("USER")] == ["USER bentoml"]
    after_user = lines[lines.index("USER bentoml") :]
    assert not [line for line in after_user if line.startswith(("RUN", "COPY", "ENV"))]
    assert "ENV UV_FIND_LINKS" not in bento.dockerfile  # a secret of the build


@pytest.mark.long
@pytest.mark.needs("namespaces")
def test_same_bytes_as_the_source_tree_without_network(
    bento: Bento, server: Server, home: Path
) -> None:
    here = HTTP.post(f"{server.url}/generate", content=BODY, timeout=60).content
    assert answer_offline(home, bento.tag, BODY) == here


@pytest.mark.long
@pytest.mark.needs("namespaces")
def test_pulled_model_is_pinned_and_goes_along(
    commit: str, home: Path, commands: Path, tmp_path: Path
) -> None:
    bento = build_bento(home, commands, model=MODEL)
    [model] = bento.info["services"][0]["models"]
    assert model["tag"] == f"pythia-14m-int8:{commit}"
    with serve(home, model=MODEL) as server:
        here = HTTP.post(f"{server.url}/generate", content=BODY, timeout=60).content
    assert json.loads(here)["model"] == MODEL
    assert answer_offline(home, bento.tag, BODY) == here
    # As in an image: the model beside the Bento, and a home that holds nothing.
    with _image_context(home, bento.tag) as context:
        assert answer_offline(tmp_path, context, BODY) == here


@pytest.mark.long
def test_changed_byte_in_the_store_is_not_served(commit: str, home: Path, tmp_path: Path) -> None:
    for part in ("models", "pythia-bento"):
        shutil.copytree(home / part, tmp_path / part)
    weights = tmp_path / "models" / "pythia-14m-int8" / commit / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = run(tmp_path, BENTOML, "serve", "--port", str(free_port()), PYTHIA_MODEL=MODEL)
    assert done.returncode == 1
    assert f"{MODEL} will not be served: " in done.stderr
    assert "model.safetensors has sha256 " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("model", "at"),
    [
        pytest.param("pythia-70m", "", marks=pytest.mark.long),
        ("pythia-1b-deduped", r" at the commit 7199d8fc[0-9a-f]{32}, which the lock pins,"),
    ],
)
def test_model_that_was_not_pulled_makes_no_bento(home: Path, model: str, at: str) -> None:
    done = run(home, BENTOML, "build", "--arg", f"model={model}")  # the real one: it ends at once
    assert done.returncode != 0
    wanted = rf"{model}{at} is not in the store; `pythia-bento pull {model}` brings it there"
    assert re.search(wanted, done.stderr), done.stderr


@contextlib.contextmanager
def _image_context(home: Path, tag: str) -> Iterator[str]:
    """The directory that an image of a Bento is made of."""
    places = bentoml_places(home)
    for provider, place in places.items():
        provider.set(place)
    try:
        bento = BentoStore(home / "bentos").get(tag)
        with construct_containerfile(bento) as (context, _):
            yield context
    finally:
        for provider in places:
            provider.reset()
