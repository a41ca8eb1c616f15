"""docs/security.md and docs/faults.md: signatures hold, and the tests they name are there."""

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


@pytest.mark.parametrize("page", ["security", "faults"])
def test_the_tests_that_are_named_are_there(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    named = re.findall(r"`((?:unit|integration|e2e)/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 30
    for file, test in named:
        path = ROOT / "tests" / file
        assert path.is_file(), file
        assert not test or re.search(rf"\bdef {test}\(", path.read_text()), test
