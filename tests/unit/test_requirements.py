"""The locks against pyproject.toml, and against what must not be in them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import pythia_bento
from pythia_bento.server.bentoml import packaging

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def locked(name: str) -> list[Requirement]:
    """The pins in a lock."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    pins = (line for line in lines if re.match(r"[a-z0-9]", line))
    return [Requirement(pin.removesuffix("\\")) for pin in pins]


def applying(name: str, python: str) -> dict[str, str]:
    """Names and versions that a lock has for one Python."""
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in locked(name)
        if applies(pin, python)
    }


def applies(requirement: Requirement, python: str) -> bool:
    environment = {
        **{"python_version": python, "python_full_version": f"{python}.0"},
        **{"implementation_name": "cpython", "sys_platform": "linux"},
    }
    return requirement.marker is None or requirement.marker.evaluate(environment)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", ["serve.txt", "test.txt"])
def test_every_dependency_is_locked_within_its_range(name: str, python: str) -> None:
    pins = applying(name, python)
    extras = ("cuda", "dev", "guided", "llm-int8", "otlp") if name == "test.txt" else ()
    ranges = [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    for requirement in map(Requirement, ranges):
        if requirement.name not in ("torch", "triton") and applies(requirement, python):
            pin = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pin), (requirement, pin)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", ["serve.txt", "uv.txt"])
def test_what_is_served_and_installed_with_was_tested(name: str, python: str) -> None:
    assert applying(name, python).items() <= applying("test.txt", python).items()


def test_images_are_built_with_the_same_uv() -> None:
    assert f"uv=={applying('uv.txt', packaging.PYTHON)['uv']}" == packaging.UV


def test_torch_and_its_libraries_are_left_to_the_machine() -> None:
    asked = {"serve.txt": {"nvidia-ml-py"}}  # a monitor
    asked["test.txt"] = {*asked["serve.txt"], "nvidia-cuda-nvrtc"}  # and a compiler
    for lock, ours in asked.items():
        names = {pin.name for pin in locked(lock)}
        assert not {"torch", "triton", "cuda-toolkit"} & names
        assert {name for name in names if name.startswith("nvidia")} == ours
    makefile = (ROOT / "Makefile").read_text()
    version = re.search(r"^PYTHIA_TORCH \?= (torch==\S+)$", makefile, re.M)
    overrides = (ROOT / "requirements" / "overrides.txt").read_text().splitlines()
    assert version and version[1] in overrides


def test_the_harness_leaves_torch_and_transformers_to_our_environment() -> None:
    names = {pin.name for pin in locked("eval.txt")}
    assert "lm-eval" in names
    assert not {"torch", "transformers", "triton"} & names


def test_ray_is_locked_as_the_extra_has_it_and_with_what_was_tested() -> None:
    text = (ROOT / "requirements" / "ray.in").read_text()
    assert [line for line in text.splitlines() if not line.startswith("#")] == EXTRAS["ray"]
    names = {pin.name for pin in locked("ray.txt")}
    assert {"pyarrow", "ray"} <= names
    assert not {"torch", "triton"} & names
    [asked] = map(Requirement, EXTRAS["ray"])
    for python in PYTHONS:
        pins, tested = applying("ray.txt", python), applying("test.txt", python)
        assert asked.specifier.contains(pins["ray"])
        assert all(tested.get(name, pin) == pin for name, pin in pins.items())


@pytest.mark.parametrize("name", ["serve-cpu.txt", "serve-gpu.txt"])
def test_images_install_every_dependency_as_tested(name: str) -> None:
    pins = {pin.name: pin for pin in locked(name)}
    texts = (*PROJECT["dependencies"], *EXTRAS["llm-int8"])
    assert {canonicalize_name(Requirement(text).name) for text in texts} <= pins.keys()
    assert "transformers" not in pins
    tested = {pin.name: pin for pin in locked("test.txt") if applies(pin, "3.11")}
    for shared in pins.keys() & tested.keys():
        assert pins[shared].specifier == tested[shared].specifier


def test_images_have_the_torch_that_was_tested() -> None:
    [version] = {
        str(pin.specifier).partition("+")[0]
        for name in ("serve-cpu.txt", "serve-gpu.txt")
        for pin in locked(name)
        if pin.name == "torch"
    }
    assert f"torch{version}" in (ROOT / "requirements" / "overrides.txt").read_text().splitlines()


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_no_index_and_no_path_is_named(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash=", ""), re.M)
    assert not re.search(r"(^|\s)/\w", text, re.M)


@pytest.mark.parametrize(
    "name",
    [path.name for path in LOCKS if not path.name.startswith("overrides")],
)
def test_every_pin_has_a_hash(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    pins = re.split(r"^(?=[a-z0-9][^\n]*==)", text, flags=re.M)[1:]
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)


def test_changelog_knows_the_version() -> None:
    versions = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[:2] == ["Unreleased", pythia_bento.__version__]


def test_the_oldest_and_the_newest_bentoml_are_of_the_range_that_is_declared() -> None:
    """``make bentoml-versions`` tests with both."""
    [declared] = [one for one in PROJECT["dependencies"] if Requirement(one).name == "bentoml"]
    text = (ROOT / "requirements" / "bentoml.in").read_text()
    assert [line for line in text.splitlines() if not line.startswith("#")] == [declared]
    pins = [locked(f"bentoml-{age}.txt") for age in ("oldest", "newest")]
    [[oldest], [newest]] = [[str(pin.specifier)[2:] for pin in found] for found in pins]
    assert f">={oldest}" in declared.partition("bentoml")[2].split(",")
    assert Requirement(declared).specifier.contains(newest)
    assert Version(oldest) <= Version(newest)
