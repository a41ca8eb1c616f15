"""What the package imports is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pythia_bento"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
TOOLS = {"bench", "dev"}  # extras that the package itself does not need

# Declared for others, who import it where it is installed.
BY_OTHERS = {
    "httptools": "the parser of uvicorn's that server/bentoml/http_protocol.py builds on",
    "opentelemetry-instrumentation-asgi": "the layer that server/bentoml/tracing.py takes over",
    "uvloop": "uvicorn's event loop",
    "opentelemetry-exporter-otlp-proto-http": "BentoML's exporter of traces",
}
# Where an extra's packages may be imported: the rest works without.
PLACES = {
    "bitsandbytes": {PACKAGE / "model" / "kernels" / "reference"},
    "cuda-bindings": {PACKAGE / "model" / "kernels" / "gpu"},
    "triton": {PACKAGE / "model" / "kernels" / "gpu"},
    "llguidance": {PACKAGE / "engine"},
    "matplotlib": {PACKAGE / "client", PACKAGE / "sweep"},
    "pyarrow": {PACKAGE / "sweep"},
    "ray": {PACKAGE / "sweep" / "ray"},
}
# Builds of torch for a GPU bring Triton; Ray has an environment of its own (`make ray`).
ELSEWHERE = {"ray", "triton"}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


REQUIRED = names(PROJECT["dependencies"])
OPTIONAL = {name for extra in EXTRAS.keys() - TOOLS for name in names(EXTRAS[extra])}


def modules(distribution: str) -> Iterator[str]:
    """Dotted names of its files, or its own name if it is installed elsewhere."""
    try:
        installed = files(distribution) or []
    except PackageNotFoundError:
        assert distribution in ELSEWHERE, f"{distribution} is declared and not installed"
        yield distribution
        return
    for file in installed:
        if file.suffix in (".py", ".so") and ".." not in file.parts:
            *folders, name = file.parts
            stem = name.partition(".")[0]
            yield ".".join(folders if stem == "__init__" else [*folders, stem])


def imports() -> Iterator[tuple[Path, str]]:
    """Files and the full names they import, but for the standard library and ourselves."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in found:
                if name.partition(".")[0] not in {*sys.stdlib_module_names, PACKAGE.name}:
                    yield path, name


Used = list[tuple[Path, str, str | None]]


@pytest.fixture(scope="module")
def used() -> Used:
    """Files, what they import, and who brings it."""
    brings = {module: name for name in REQUIRED | OPTIONAL for module in modules(name)}

    def declared(name: str) -> str | None:
        """Who brings ``name``, or the longest part of it that is a module."""
        while name and name not in brings:
            name = name.rpartition(".")[0]
        return brings.get(name)

    return [(path, name, declared(name)) for path, name in imports()]


def test_what_is_imported_is_declared(used: Used) -> None:
    assert not {f"{path}: {name}" for path, name, origin in used if origin is None}


def test_what_is_declared_is_imported(used: Used) -> None:
    unused = (REQUIRED | OPTIONAL) - {origin for _, _, origin in used}
    assert unused == BY_OTHERS.keys()


def test_the_package_works_without_its_extras(used: Used) -> None:
    optional = {(path, origin) for path, _, origin in used if origin in OPTIONAL - REQUIRED}
    assert {origin for _, origin in optional} == PLACES.keys()
    wrong = {path for path, origin in optional if PLACES[str(origin)].isdisjoint(path.parents)}
    assert not wrong
