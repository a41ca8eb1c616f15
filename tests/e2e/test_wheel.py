"""The wheel outside the repository, with the dependencies that it declares and nothing else.

What is not ours is linked from this environment, file by file: nothing is downloaded, and it takes
seconds. Only the distributions are linked that the wheel's own metadata asks for, and what those
ask for in turn; so a package that is imported and not declared is missed here as it would be
elsewhere, and ``uv pip check`` compares all versions with what is asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pythia_bento.model.kernels.cpu import build
from tests.e2e.serving import ROOT, Server, environment, serve

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "pythia_bento")
MADE = shutil.ignore_patterns("__pycache__", "*.so")
UV = Path(sys.executable).parent / "uv"
TEXT = ", there was a lonely boy named Finn."


@dataclass(frozen=True)
class Outside:
    """An environment that knows nothing of the repository, and a folder to work in."""

    python: Path
    folder: Path

    def run(self, *command: str | Path) -> str:
        variables = os.environ | {"PYTHIA_DEVICE": "cpu"}
        variables.pop("PYTHONPATH", None)
        done = subprocess.run(
            command, cwd=self.folder, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def site(self) -> Path:
        show = "import sysconfig; print(sysconfig.get_path('purelib'))"
        return Path(self.run(self.python, "-c", show).strip())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as an older ``build`` folder would find its way into it."""
    root = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=MADE)
        else:
            shutil.copy(ROOT / name, root)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = root.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def outside(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Outside:
    [metadata] = [
        path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info")
    ]
    needed = requirements(PathDistribution(metadata), set())
    outside = environment_of(wheel, needed, tmp_path_factory.mktemp("outside"))
    if build.compiler() == build.ZIG:  # no dependency: most machines have a compiler
        link(distribution("ziglang"), outside.site())
    outside.run(UV, "pip", "check", "--python", outside.python)
    return outside


@pytest.fixture(scope="module")
def client_alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Outside:
    """What docs/grpc.md installs for those who only ask."""
    [names] = re.findall(r"^pip install (?!-)(.*)$", (ROOT / "docs/grpc.md").read_text(), re.M)
    needed = [Requirement(name) for name in names.split()]
    return environment_of(wheel, needed, tmp_path_factory.mktemp("client"))


def environment_of(wheel: Path, needed: list[Requirement], folder: Path) -> Outside:
    """A new one with the wheel and what is needed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    outside = Outside(folder / "venv" / "bin" / "python", folder)
    for dependency in closure(needed):
        link(dependency, outside.site())
    install = ("install", "--offline", "--no-deps", wheel)
    outside.run(UV, "pip", *install, "--python", outside.python)
    return outside


def closure(wanted: list[Requirement]) -> Iterator[Distribution]:
    """The installed distributions that are needed, however indirectly."""
    wanted = list(wanted)
    seen: dict[str, set[str]] = {}
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras | seen.get(name, set())
        if seen.get(name) != extras:
            if name not in seen:
                yield distribution(name)
            seen[name] = extras
            wanted += requirements(distribution(name), extras)


def requirements(of: Distribution, extras: set[str]) -> list[Requirement]:
    """Those that hold on this machine."""
    found = [Requirement(text) for text in of.requires or []]
    return [
        requirement
        for requirement in found
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def link(dependency: Distribution, site: Path) -> None:
    """With what was compiled, where this is kept: torch takes ten seconds to compile."""
    origin = Path(str(dependency.locate_file("")))
    for file in dependency.files or []:
        if ".." in file.parts:  # a command's script, which names this environment
            continue
        compiled = origin / file.parent / "__pycache__"
        for path in (origin / file, compiled / f"{file.stem}.{sys.implementation.cache_tag}.pyc"):
            target = site / path.relative_to(origin)
            if path.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path)


def test_all_files_of_the_package_are_in_the_wheel(wheel: Path) -> None:
    package = ROOT / "pythia_bento"
    wanted = {
        str(path.relative_to(ROOT))
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so") and path.name[0] != "."
    }
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in inside if ".dist-info/" not in name} == wanted


def test_the_readme_installs_the_wheel_that_is_made(wheel: Path) -> None:
    assert f"\npip install {wheel.name}\n" in (ROOT / "README.md").read_text()


def test_the_repository_and_its_tools_are_not_there(outside: Outside) -> None:
    names = ("service", "pytest", "transformers", "bitsandbytes")
    show = "import importlib.util as u, pythia_bento as p; print(*map(u.find_spec, {}), p.__file__)"
    *others, place = outside.run(outside.python, "-c", show.format(names)).split()
    assert set(others) == {"None"}
    assert Path(place).is_relative_to(outside.folder)


@pytest.mark.long
def test_it_generates_and_compiles_its_kernels_at_first_use(outside: Outside) -> None:
    command = outside.python.parent / "pythia-bento"
    options = ("--max-tokens", "22", "--temperature", "0")
    assert outside.run(command, "generate", "Once upon a time", *options).startswith(TEXT)
    libraries = outside.site() / "pythia_bento" / "model" / "kernels" / "cpu" / "lib"
    [compiled] = libraries.iterdir()
    assert compiled.name == build.library(build.supported()[0]).name


def test_the_client_needs_neither_torch_nor_bentoml(client_alone: Outside, server: Server) -> None:
    code = f"""
import importlib.util, sys
from pythia_bento.client import Client
for url in ("{server.url}", "grpc://127.0.0.1:{server.grpc_port}"):
    with Client(url) as client:
        print(client.generate("Once upon a time", max_tokens=22, temperature=0).text)
known = ("torch", "bentoml", "pydantic", "tokenizers", "starlette")
print([name for name in known if importlib.util.find_spec(name)])
"""
    *texts, known = client_alone.run(client_alone.python, "-c", code).splitlines()
    assert len(texts) == 2 and all(text.startswith(TEXT) for text in texts)
    assert known == "[]"


@pytest.mark.long
def test_it_serves_from_another_directory(
    outside: Outside, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    command = (str(outside.python.parent / "pythia-bento"),)
    with serve(home, "bundled@step512", cwd=outside.folder, bentoml=command) as server:
        body = {"prompt": "Once upon a time", "max_tokens": 22, "temperature": 0}
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json()
        assert answer["model"] == "bundled@step512"
        assert len(answer["choices"][0]["text"]) > 20
        assert "-cpu-w8a16" in answer["system_fingerprint"]


@pytest.mark.long
def test_a_port_that_is_taken_is_one_line(outside: Outside, home: Path) -> None:
    variables = environment(home)
    variables.pop("PYTHONPATH", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [outside.python.parent / "pythia-bento", "serve", "--host", "127.0.0.1", "-p", port],
            cwd=outside.folder,
            env=variables,
            capture_output=True,
            text=True,
        )
    assert done.returncode != 0
    assert "pythia-bento: the address to serve HTTP on is taken by another program" in done.stderr
    assert "Traceback" not in done.stderr
