"""docs/security.md: the tests that it names are there, and its signatures hold."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.unit.deploy.manifests import ROOT

GUIDE = (ROOT / "docs" / "security.md").read_text()


def signing() -> str:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    (found,) = (block for block in blocks if "ssh-keygen" in block)
    return str(found)


def test_every_file_and_test_that_it_names_exists() -> None:
    for path in re.findall(r"`(tests/[\w/.]+)", GUIDE):
        assert (ROOT / path).exists(), path
    code = (ROOT / "tests" / "e2e" / "test_security.py").read_text()
    names = set(re.findall(r"\btest_\w+(?!\.py)\b", GUIDE))
    of_files = {Path(path).stem for path in re.findall(r"tests/[\w/]+\.py", GUIDE)}
    assert len(names - of_files) >= 10
    for name in names - of_files:
        assert f"def {name}(" in code, name


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    for name in ("pythia.bento", "pythia-sbom.cdx.json"):
        (tmp_path / name).write_text(name)
    done = run(signing(), tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.mark.needs("ssh-keygen")
@pytest.mark.parametrize("changed", ["pythia.bento", "pythia-sbom.cdx.json", "SHA256SUMS"])
def test_what_was_changed_after_signing_is_refused(signed: Path, changed: str) -> None:
    verify = "\n".join(signing().splitlines()[-2:])
    assert run(verify, signed).returncode == 0
    with (signed / changed).open("a") as file:
        file.write("# changed\n")
    assert run(verify, signed).returncode != 0
