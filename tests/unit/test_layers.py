"""Layers point one way: what a folder of the package may import, and no circle anywhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pythia_bento"
MAX_LINES = 300
MAX_ROOT_MODULES = 6

# A folder, or a module of the root, and what it may import of the package beside itself.
BASE = {"", "errors", "hardware"}  # "" is the package itself: its version
ENGINE = BASE | {"model", "engine"}
RUNTIME = ENGINE | {"catalog", "settings", "checkpoints", "executor", "telemetry", "runtime"}
ALLOWED = {
    "": set(),
    "errors": set(),
    "hardware": set(),
    "settings": BASE,
    "catalog": BASE | {"model"},
    "model": BASE,
    "engine": BASE | {"model"},
    "telemetry": ENGINE,
    "executor": ENGINE,
    "checkpoints": BASE | {"catalog", "model"},
    "protocol": ENGINE,
    "client": BASE | {"protocol"},
    "runtime": RUNTIME - {"runtime"},
    "handlers": RUNTIME | {"protocol"},
    "sweep": RUNTIME | {"protocol", "handlers", "client"},
    "server": RUNTIME | {"protocol", "handlers", "sweep"},
    "local": RUNTIME | {"protocol", "handlers", "client", "sweep"},
    "cli": RUNTIME | {"protocol", "handlers", "client", "server", "sweep"},
    "service": RUNTIME | {"protocol", "handlers", "server"},
}
# What nothing from the engine down may know: it runs where only torch and its like are installed.
LOWER = ("engine", "executor", "model", "errors", "hardware")
SERVING = {"bentoml", "starlette", "uvicorn", "grpc", "pydantic", "fastapi", "opentelemetry"}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache  # three tests ask for all files
def imported(path: Path) -> list[tuple[int, str]]:
    """(line, full name) of everything that a file imports, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def own(path: Path) -> Iterator[tuple[int, str]]:
    """The same, only modules of the package, each by its longest name that is a module."""
    for line, name in imported(path):
        while name.startswith("pythia_bento") and name not in MODULES:
            name = name.rpartition(".")[0]
        if name in MODULES:
            yield line, name


def room(module: str) -> str:
    return ".".join(module.split(".")[1:2])


def test_every_folder_imports_only_what_lies_below() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {module} -> {name}"
        for module, path in MODULES.items()
        for line, name in own(path)
        if room(name) not in {room(module)} | ALLOWED[room(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {name for _, name in own(path) if name != module}
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_engine_and_what_is_below_know_no_transport() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {name}"
        for module, path in MODULES.items()
        if room(module) in LOWER
        for line, name in imported(path)
        if name.split(".")[0] in SERVING
    ]
    assert not wrong, "\n".join(wrong)


def test_files_hold_one_idea_and_the_root_few() -> None:
    long = [
        f"{module}: {count} lines"
        for module, path in MODULES.items()
        if "generated" not in module
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    ]
    assert not long, "\n".join(long)
    root = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(root) <= MAX_ROOT_MODULES, root


def test_the_design_page_lists_the_rooms() -> None:
    page = (PACKAGE.parent / "docs" / "design.md").read_text()
    table = page.partition("## The house")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    rooms = {room(module) for module in MODULES} - {""}
    assert sorted(listed) == sorted(rooms)
    below = {name: set(listed[place + 1 :]) for place, name in enumerate(listed)}
    for name in listed:
        assert ALLOWED[name] - {""} <= below[name], f"{name} imports from above in the table"


def test_the_pages_of_design_name_files_that_are_there() -> None:
    for page in ("design", "engine", "numerics", "serving"):
        text = (PACKAGE.parent / "docs" / f"{page}.md").read_text()
        for name in re.findall(r"`([\w/]+/\w+\.(?:py|h|proto|cuh?))`", text):
            places = (PACKAGE / name, PACKAGE.parent / name, PACKAGE / "model" / "kernels" / name)
            assert any(place.exists() for place in places), (page, name)
