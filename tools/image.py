"""An image of a Bento in layers: ``python -m tools.image BENTO IMAGE``; `make image` calls it.

BentoML gathers the files, as for `bentoml containerize`; deploy/image/Dockerfile puts torch, the
other packages and the code into layers of their own, and what no server needs into none.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import NamedTuple

import bentoml
from bentoml._internal.container import construct_containerfile
from bentoml._internal.container.generate import DEFAULT_BENTO_ENVS

from pythia_bento import __version__
from pythia_bento.server.bentoml import packaging

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "deploy" / "image" / "Dockerfile"
MOUNTS = (
    "--mount=type=bind,from=tools,source=/usr/local/bin,target=/tools",
    "--mount=type=secret,id=UV_FIND_LINKS",
)
USES = 'export PATH="/tools:$PATH" UV_NO_CACHE=1 UV_NO_PROGRESS=1 UV_LINK_MODE=copy;'
EXPORTS = 'UV_FIND_LINKS="$(cat /run/secrets/UV_FIND_LINKS)"'


class Layer(NamedTuple):
    """What an instruction of the Dockerfile added to an image."""

    size: int
    made_by: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.image", description=__doc__)
    parser.add_argument("bento", nargs="?")
    parser.add_argument("image", nargs="?")
    parser.add_argument("--sizes", metavar="IMAGE", help="of one that is there; nothing is built")
    parser.add_argument("--at-most", type=float, metavar="MB", help="what a release may take")
    parser.add_argument("--backend", default="docker", help="docker or podman")
    parser.add_argument("--option", action="append", default=[], help="of its build: network=none")
    options = parser.parse_args()
    image = options.sizes or options.image
    if not options.sizes:
        build(options.bento, image, options.backend, options.option)
    layers = list(layers_of(image, options.backend))
    megabytes = release_size(layers) / 1e6
    print(table(layers))
    print(f"{megabytes:.1f} MB are new in a release with the same packages")
    sys.exit(options.at_most is not None and megabytes > options.at_most)


def build(tag: str, image: str, backend: str, options: list[str]) -> None:
    with (
        tempfile.NamedTemporaryFile("w") as secret,
        construct_containerfile(bentoml.get(tag)) as (context, _),
    ):
        secret.write(os.environ.get("UV_FIND_LINKS", ""))
        secret.flush()
        folder = Path(context)
        pins = (folder / "env/python/requirements.txt").read_text()
        (folder / "env/python/torch.txt").write_text(torch_pins(pins))
        (folder / "Dockerfile").write_text(dockerfile(is_gpu="\ntriton==" in pins))
        command = [backend, "build", "--tag", image, *labels()]
        command += ["--secret", f"id=UV_FIND_LINKS,src={secret.name}"]
        command += [f"--{option}" for option in options]
        environment = os.environ | {"DOCKER_BUILDKIT": "1"}
        done = subprocess.run([*command, context], env=environment)
    if done.returncode:
        sys.exit(done.returncode)


def dockerfile(is_gpu: bool) -> str:
    names = {
        "base": f"python:{packaging.PYTHON}-slim",
        "python": packaging.PYTHON,
        "uv": packaging.UV,
        "home": "/home/bentoml",
        "user": str(DEFAULT_BENTO_ENVS["uid_gid"]),
        "system": f" && {packaging.C_COMPILER}" if is_gpu else "",
        "mounts": " ".join(MOUNTS),
        "uses": USES,
        "exports": EXPORTS,
        "trim_torch": packaging.TRIM_TORCH,
        "trim_others": packaging.trim_others(is_gpu),
        "compile_others": packaging.COMPILE_OTHERS,
    }
    return Template(DOCKERFILE.read_text()).substitute(names)


def torch_pins(pins: str) -> str:
    """Of a locked requirements file, what torch is and needs."""
    each = re.split(r"^(?=[a-z0-9])", pins, flags=re.MULTILINE)[1:]
    ours = [pin for pin in each if packaging.TORCH.match(pin) and "--hash" in pin]
    return "".join(ours)


def labels() -> list[str]:
    """What differs between releases: not in the Dockerfile, whose layers would be others then."""
    found = {"version": __version__, "revision": commit()}
    return [f"--label=org.opencontainers.image.{name}={value}" for name, value in found.items()]


def commit() -> str:
    """Of the source tree; empty where there is none."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def layers_of(image: str, backend: str) -> Iterator[Layer]:
    """The newest first."""
    command = [backend, "history", "--no-trunc", image]
    form = ["--format", "{{.Size}}\t{{.CreatedBy}}"]
    done = subprocess.run([*command, *form], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        size, made_by = line.split("\t", 1)
        yield Layer(parsed(size), made_by)


def parsed(size: str) -> int:
    """Bytes of `14.2MB`, as docker writes it, or `14.2 MB`, as podman does."""
    number, unit = re.fullmatch(r"([\d.]+) ?([kMG]?)B", size).groups()  # type: ignore[union-attr]
    return round(float(number) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[unit])


def release_size(layers: list[Layer]) -> int:
    """Bytes of the layers above those of packages."""
    ours = 0
    for layer in layers:
        if "requirements.txt" in layer.made_by:
            return ours
        ours += layer.size
    raise ValueError("no layer of this image has packages")


def table(layers: list[Layer]) -> str:
    """Layers of a size, the lowest first."""
    lines = [
        f"{layer.size / 1e6:8.1f} MB  {said(layer.made_by)}"
        for layer in reversed(layers)
        if layer.size > 1e6
    ]
    total = sum(layer.size for layer in layers)
    return "\n".join([*lines, f"{total / 1e6:8.1f} MB  in all"])


def said(made_by: str) -> str:
    """What is in a layer, by what made it."""
    known = {"torch.txt": "torch", "requirements.txt": "other packages", "COPY": "code"}
    return next((what for part, what in known.items() if part in made_by), made_by[:60])


if __name__ == "__main__":
    main()
