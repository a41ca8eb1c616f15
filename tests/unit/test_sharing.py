from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sharing import GROUPS, group

ROOT = Path(__file__).parents[2]
FIXTURE = r"^@pytest\.fixture[^\n]*\n(async )?def \w+"
USE = {
    "faulty": r"^(async )?def test_\w+\([^)]*\bfailing: Server",
    "imports": r"^from tests\.(forkserver|fuzz\.kinds|hub\.child|models|config_parity|pairs) import"
    r"|^from tests\.later import .*(bitsandbytes|transformers)|\b(original|sources): Path",
    "servers": rf"^from tests\.later import .*openai"
    rf"|(^(async )?def test_\w+|{FIXTURE})\([^)]*\b(server|guarded|shelf|window): "
    rf"(Server|Browser)",
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_is_all_files_that_use_what_it_shares(name: str) -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in ROOT.glob("tests/*/**/test_*.py")
        if re.search(USE[name], path.read_text(), re.MULTILINE)
    }
    names = list(GROUPS)
    before = set().union(*(GROUPS[other] for other in names[: names.index(name)]))
    assert files - before == GROUPS[name]


def test_what_is_slow_to_import_is_imported_later() -> None:
    now = re.compile(r"^(import|from) (bitsandbytes|openai|transformers)\b", re.MULTILINE)
    collected = [*ROOT.glob("tests/*.py"), *ROOT.glob("tests/**/test_*.py")]
    assert len(collected) > 200
    assert [path for path in collected if now.search(path.read_text())] == []


def test_groups_stay_together_and_others_are_files() -> None:
    asks = "tests/e2e/test_access.py::test_calls_need_the_key[/score]"
    assert group(asks) == group("tests/e2e/test_secrets.py::test_no_key") == "servers"
    assert group("tests/unit/test_errors.py::test_leaf") == "tests/unit/test_errors.py"


@pytest.mark.long
def test_files_of_a_group_run_in_one_process(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # their imports take seconds
    test = "import os\nfrom pathlib import Path\ndef test(): Path({!r}, str(os.getpid())).touch()\n"
    for folder in ("tests/e2e", "seen"):
        pytester.path.joinpath(folder).mkdir(parents=True)
    for name in ("access", "fuzz", "playground", "secrets"):
        file = pytester.path / f"tests/e2e/test_{name}.py"
        file.write_text(test.format(str(pytester.path / "seen")))
    plugins = ("-p", "xdist", "-p", "xdist.looponfail", "-p", "tests.sharing")
    done = pytester.runpytest_subprocess(*plugins, "-n", "2", "--dist", "loadfile")
    done.assert_outcomes(passed=4)
    assert len([*pytester.path.joinpath("seen").iterdir()]) == 1
