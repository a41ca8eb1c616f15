"""The wheel outside the repository, with the dependencies that it declares and nothing else.

``uv pip check`` compares all versions with what is asked for. This is the wheel for any machine,
which compiles its kernels; the one that has them inside is ``test_compiled_wheel.py``'s.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pythia_bento.model.kernels.cpu import build
from tests.e2e.outside import UV, Outside, asked_for, environment_of, link
from tests.e2e.serving import ROOT, Server, environment

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "pythia_bento")
MADE = shutil.ignore_patterns("__pycache__", "*.so")
TEXT = ", there was a lonely boy named Finn."


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
    outside = environment_of(wheel, asked_for(wheel), tmp_path_factory.mktemp("outside"))
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
    assert f"`{wheel.name}`" in (ROOT / "README.md").read_text()


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
