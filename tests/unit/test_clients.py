"""The table of programs in docs/clients.md against what `make clients` installs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.clients.programs import HERE, LOAD, NODE, PROGRAMS, PYTHON, Program

ROOT = Path(__file__).parents[2]
LOCKS = {PYTHON: "clients.txt", LOAD: "clients-load.txt"}


def locked(program: Program) -> str:
    """The version that is pinned."""
    if program.place == NODE:
        packages = json.loads((HERE / "node" / "package-lock.json").read_text())["packages"]
        return str(packages[f"node_modules/{program.package}"]["version"])
    pins = (ROOT / "requirements" / LOCKS[program.place]).read_text()
    [version] = re.findall(rf"^{re.escape(program.package)}==(\S+)", pins, re.MULTILINE)
    return str(version)


def test_every_program_is_in_the_table_with_its_version() -> None:
    text = (ROOT / "docs" / "clients.md").read_text()
    rows = re.search("<!-- tests.clients -->\n(.*)\n<!-- end -->", text, re.DOTALL)
    assert rows
    listed = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| [^|]+ \|$", rows[1], re.MULTILINE)
    assert listed == [(program.name, locked(program)) for program in PROGRAMS]


def test_what_is_tested_elsewhere_is_there() -> None:
    for path in re.findall(r"`(tests/\S+\.py)`", (ROOT / "docs" / "clients.md").read_text()):
        assert (ROOT / path).is_file(), path


def test_a_lock_names_no_registry() -> None:
    for path in (HERE / "node").iterdir():
        text = path.read_text()
        assert "resolved" not in text and not re.search(r"registry\.|npmjs", text)
