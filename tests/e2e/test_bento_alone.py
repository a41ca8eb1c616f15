"""A Bento of a fresh clone: complete, and served as it is where there is no compiler."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pythia_bento.model.kernels.cpu import build
from tests.e2e.offline import answer_offline
from tests.e2e.serving import BENTOML, HTTP, ROOT, START_SECONDS, Server, environment
from tests.e2e.test_bento import BODY

LIBRARIES = "pythia_bento/model/kernels/cpu/lib"
SOURCES = ("bentofile.yaml", "service.py", "LICENSE", "pythia.lock", "pythia_bento", "requirements")

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a Bento is built of, as a clone has it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            made = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(path, folder / name, ignore=made)
        else:
            shutil.copy(path, folder)
    return folder


def without_compiler(folder: Path) -> dict[str, str]:
    """An environment that finds none: no command, no ziglang, nothing that was compiled before."""
    hidden = folder / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['ziglang'] = None\n")
    commands = folder / "commands"
    commands.mkdir(exist_ok=True)
    for name in ("unshare", "sh", "uname"):
        found = shutil.which(name)
        if found and not (commands / name).exists():
            (commands / name).symlink_to(found)
    return {
        "PATH": str(commands),
        "PYTHONPATH": str(hidden),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def bentoml_build(clone: Path, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("CXX", "PYTHONPATH")}
    return subprocess.run(
        [BENTOML, "build", "--output", "tag"],
        cwd=clone,
        env={**kept, "PYTHIA_DEVICE": "cpu", "BENTOML_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


def hashes(folder: Path) -> dict[str, str]:
    """Of all files but Python's own byte code, which it keeps beside every source."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_without_a_compiler_no_bento_is_built(clone: Path, tmp_path: Path) -> None:
    done = bentoml_build(clone, tmp_path / "home", **without_compiler(tmp_path))
    assert done.returncode != 0
    assert "compiled kernels inside, but the CPU kernels need a C++ compiler" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "home/bentos").glob("pythia/*"))


@pytest.mark.needs("namespaces")
def test_what_bentoml_build_makes_serves_anywhere_and_is_left_unchanged(
    clone: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    done = bentoml_build(clone, home, XDG_CACHE_HOME=str(tmp_path / "builder"))
    assert done.returncode == 0, done.stderr
    tag = done.stdout.strip().removeprefix("__tag__:")
    bento = home / "bentos" / tag.replace(":", "/")
    compiled = {path.name for path in (bento / "src" / LIBRARIES).iterdir()}
    assert compiled == {build.library(variant).name for variant in build.variants()}
    here = HTTP.post(f"{server.url}/generate", content=BODY, timeout=60).content

    before = hashes(bento)
    monkeypatch.delenv("CXX", raising=False)
    for name, value in without_compiler(tmp_path).items():
        monkeypatch.setenv(name, value)
    assert answer_offline(home, tag, BODY) == here
    assert hashes(bento) == before
    assert not (tmp_path / "cache").exists()

    # The control: that environment has no compiler, and nothing worse is served in its place.
    shutil.rmtree(bento / "src" / LIBRARIES)
    done = subprocess.run(
        [BENTOML, "serve", tag], cwd=home, env=environment(home), capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "is auto, but the CPU kernels need a C++ compiler once" in done.stderr
    assert "PYTHIA_BACKEND=reference" in done.stderr
