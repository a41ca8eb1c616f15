"""Which unit tests `make check` runs for a change."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tests.tools import TOOLS, tool

changed = tool("changed_tests")
ALWAYS = sorted(map(str, changed.ALWAYS))


@pytest.mark.parametrize(
    ("path", "tests"),
    [
        ("pythia_bento/engine/scheduler.py", ["tests/unit/engine/test_scheduler.py"]),
        ("pythia_bento/hardware.py", []),
        ("pythia_bento/engine/stats.py", ["tests/unit/engine/test_stats.py"]),
        ("pythia_bento/server/http/static/playground.js", ["tests/unit/server/http"]),
        ("tools/install.py", ["tests/unit/tools/test_install.py"]),
        ("tests/unit/engine/test_engine.py", ["tests/unit/engine/test_engine.py"]),
        ("tests/unit/engine/toy.py", ["tests/unit/engine"]),
        ("Makefile", []),
        ("tests/e2e/test_server.py", []),
    ],
)
def test_a_file_has_the_tests_of_its_name_or_its_folder(path: str, tests: list[str]) -> None:
    assert list(map(str, changed.tests_of(PurePosixPath(path)))) == tests


def test_every_file_in_a_folder_of_the_package_has_tests() -> None:
    package = TOOLS.parent / "pythia_bento"
    files = [path.relative_to(package.parent) for path in package.glob("*/**/*.py")]
    without = [path for path in files if not changed.tests_of(PurePosixPath(path))]
    assert len(files) > 100
    assert not without


def test_a_file_inside_of_a_folder_that_runs_is_not_run_twice() -> None:
    paths = ["tests/unit/engine/toy.py", "pythia_bento/engine/stats.py"]
    assert changed.select(map(PurePosixPath, paths)) == (sorted([*ALWAYS, "tests/unit/engine"]), [])


def test_what_unit_tests_do_not_cover_is_named_but_for_pages() -> None:
    paths = ["Makefile", "docs/design.md", "tests/e2e/gone.py"]
    assert changed.select(map(PurePosixPath, paths)) == (ALWAYS, ["Makefile", "tests/e2e/gone.py"])


def test_a_deleted_test_is_not_run() -> None:
    paths = [PurePosixPath("tests/unit/engine/test_gone.py")]
    assert changed.select(paths) == (ALWAYS, ["tests/unit/engine/test_gone.py"])
