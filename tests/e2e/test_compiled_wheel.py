"""The wheels of ``make wheel``: served, asked and built on where nothing can be compiled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythia_bento.model.kernels.cpu import build
from tests.e2e.outside import Outside, asked_for, environment_of
from tests.e2e.serving import HTTP, ROOT, Server, serve
from tests.needs import WHEEL

pytestmark = [pytest.mark.long, pytest.mark.needs("wheel tools")]

LIBRARIES = "pythia_bento/model/kernels/cpu/lib/"
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}  # elf.h
ASKED = {"prompt": "Once upon a time", "max_tokens": 22, "seed": 3, "logprobs": 1}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    command = [WHEEL / "bin" / "python", "-m", "tools.wheel", folder]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {machine: path for machine in ELF_MACHINES for path in folder.glob(f"*_{machine}.whl")}


@pytest.fixture(scope="module")
def outside(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Outside:
    wheel = wheels["x86_64"]
    return environment_of(wheel, asked_for(wheel), tmp_path_factory.mktemp("outside"))


@pytest.fixture
def _no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor a place of libraries that were compiled before."""
    (tmp_path / "commands").mkdir()
    uname = shutil.which("uname")
    assert uname
    (tmp_path / "commands" / "uname").symlink_to(uname)
    monkeypatch.setenv("PATH", str(tmp_path / "commands"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CXX", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("machine", ELF_MACHINES)
def test_all_kernels_of_an_architecture_are_inside(wheels: dict[str, Path], machine: str) -> None:
    assert wheels[machine].name.endswith(f"-py3-none-manylinux_2_28_{machine}.whl")
    wheel = zipfile.ZipFile(wheels[machine])
    inside = {name for name in wheel.namelist() if name.endswith(".so")}
    wanted = {LIBRARIES + build.file_name(name, machine) for name in build.variants(machine)}
    assert inside == wanted
    for name in inside:
        header = wheel.read(name)[:20]
        assert header[:4] == b"\x7fELF"
        assert int.from_bytes(header[18:20], "little") == ELF_MACHINES[machine]
        assert str(ROOT).encode() not in wheel.read(name)


def test_the_readme_installs_the_wheel_that_is_made(wheels: dict[str, Path]) -> None:
    assert f"\npip install dist/{wheels['x86_64'].name}\n" in (ROOT / "README.md").read_text()


def compiled(outside: Outside) -> list[Path]:
    return sorted((outside.site() / LIBRARIES).iterdir())


@pytest.mark.usefixtures("_no_compiler")
def test_its_kernels_give_the_recorded_answers(outside: Outside, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bench", outside.folder / "bench", dirs_exist_ok=True)
    before = compiled(outside)
    recorded = "bench/results/answers-cpu.json"
    command = (outside.python, "-m", "bench.common.answers", recorded, "--models", "bundled")
    assert "0 changed" in outside.run(*command)
    assert compiled(outside) == before
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def served(outside: Outside, home: Path, _no_compiler: None) -> Iterator[Server]:
    command = (str(outside.python.parent / "pythia-bento"),)
    with serve(home, "bundled", cwd=outside.folder, bentoml=command) as served:
        yield served


def test_it_serves_and_is_a_dependency_with_the_bits_of_the_source_tree(
    outside: Outside, home: Path, served: Server, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = HTTP.post(f"{server.url}/generate", json=ASKED, timeout=60).json()
    assert HTTP.post(f"{served.url}/generate", json=ASKED, timeout=60).json() == here

    shutil.copytree(ROOT / "tests/gateway", outside.folder / "tests/gateway", dirs_exist_ok=True)
    monkeypatch.setenv("REMOTE", served.url)
    command = (str(outside.python), "-m", "bentoml")
    both = "tests.gateway.both:Both"
    with serve(home, both, cwd=outside.folder, bentoml=command) as gateway:
        answer = HTTP.post(f"{gateway.url}/ask", json={"fields": ASKED}, timeout=60)
        assert answer.json() == [here, here]
        own = HTTP.post(f"{gateway.url}/v1/completions", content=b"{")
        assert own.text == "the gateway's /v1/completions"
        assert "pythia_" not in HTTP.get(f"{gateway.url}/metrics").text
    line = r"^\S+ \[INFO\] \[entry_service:both:1\] \S+ \(scheme=http,method=POST,path=/ask,type="
    assert re.search(line, gateway.log.read_text(), re.MULTILINE)
