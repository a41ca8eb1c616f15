"""The image in layers: what its Dockerfile says, and how its sizes are read."""

from __future__ import annotations

import re
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

import pythia_bento
from pythia_bento.server.bentoml import packaging
from tools import image

LOCKS = {device: packaging.REQUIREMENTS / f"serve-{device}.txt" for device in ("cpu", "gpu")}
LAYERS = [
    image.Layer(0, '/bin/sh -c #(nop) LABEL "org.opencontainers.image.title"="pythia-bento"'),
    image.Layer(3_000, "/bin/sh -c chmod +x env/docker/entrypoint.sh"),
    image.Layer(14_000_000, "/bin/sh -c #(nop) COPY --chown=1034:1034 dir:1 in ./"),
    image.Layer(300_000_000, "/bin/sh -c uv pip install -r /app/requirements.txt"),
    image.Layer(500_000_000, "/bin/sh -c uv pip install --no-deps -r /app/torch.txt"),
    image.Layer(200_000_000, "import"),
]


@pytest.mark.parametrize("is_gpu", [False, True])
def test_torch_other_packages_and_code_come_in_this_order(is_gpu: bool) -> None:
    text = image.dockerfile(is_gpu)
    order = ("/app/torch.txt &&", "/app/requirements.txt &&", "\nCOPY --chown=1034:1034 . ./")
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert ("gcc" in text) == is_gpu
    assert text.count("\nFROM python:3.11-slim") == 2
    assert "\nUSER 1034:1034\n" in text


def test_a_release_leaves_the_layers_of_packages_as_they_are() -> None:
    text = image.dockerfile(is_gpu=False)
    assert pythia_bento.__version__ not in text.replace("--version", "")
    copied = re.findall(r"^COPY (.*)$", text, re.MULTILINE)
    assert copied == [
        *("env/python/torch.txt /app/", "env/python/requirements.txt /app/"),
        "--chown=1034:1034 . ./",
    ]
    assert f"--label=org.opencontainers.image.version={pythia_bento.__version__}" in image.labels()


@pytest.mark.parametrize("device", LOCKS)
def test_torchs_layer_has_what_torch_needs_and_nothing_else(device: str) -> None:
    pins = image.torch_pins(LOCKS[device].read_text())
    names = {re.split("[=;[ ]", pin)[0] for pin in re.findall(r"^[a-z0-9].*", pins, re.MULTILINE)}
    needed = {Requirement(text).name for text in requires("torch") or [] if "extra" not in text}
    locked = re.findall(r"^([a-z0-9-]+)==", LOCKS[device].read_text(), re.MULTILINE)
    assert names >= {"torch", *needed} & set(locked)
    assert not {"bentoml", "numpy", "bitsandbytes", "pydantic", "nvidia-ml-py"} & names
    assert any(name.startswith("nvidia-") for name in names) == (device == "gpu")


@pytest.mark.parametrize(
    ("size", "nbytes"), [("0 B", 0), ("0B", 0), ("14.2MB", 14_200_000), ("1.05 GB", 1_050_000_000)]
)
def test_sizes_are_read_as_docker_and_podman_write_them(size: str, nbytes: int) -> None:
    assert image.parsed(size) == nbytes


def test_sizes_are_told_from_the_lowest_layer_on() -> None:
    lines = image.table(LAYERS).splitlines()
    assert [line.split("MB  ")[1] for line in lines] == [
        *("import", "torch", "other packages", "code", "in all")
    ]
    assert lines[-1].split() == ["1014.0", "MB", "in", "all"]
    assert image.release_size(LAYERS) == 14_003_000
    with pytest.raises(ValueError, match="no layer of this image has packages"):
        image.release_size(LAYERS[:2])
