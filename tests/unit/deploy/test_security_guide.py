"""docs/security.md: its signatures hold."""

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
