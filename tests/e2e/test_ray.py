"""Sweeps on a real Ray cluster of two nodes: the same files as without it, whatever is lost.

Ray has an environment of its own, which ``make test-long`` makes (``make ray``). It listens on all
interfaces, so the cluster runs in a network namespace that has a loopback and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.serving import ROOT
from tests.needs import RAY

pytestmark = [pytest.mark.long, pytest.mark.needs("ray", "namespaces")]

# Everything ends with the first process: its namespace has no other.
UNSHARE = ["unshare", "--net", "--uts", "--mount-proc", "--pid", "--fork", "--kill-child"]
ITEMS = 24
STEPS = 6
SECONDS = 1200  # of all, where something does not end


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one machine and the cluster made of the same items, also where parts of it are lost."""
    folder = tmp_path_factory.mktemp("ray")
    items = [
        {"id": str(number), "prompt": f"Once upon a time, there was a bear number {number}."}
        for number in range(ITEMS)
    ]
    items[7] = {"id": "7", "prompt": "bear " * 600}  # longer than the context: an error of its row
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    run(folder)
    return folder


def run(folder: Path) -> None:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = [RAY / "bin" / "python", "-m", "tests.e2e.ray_cluster", folder]
    # Paths of sockets may have 107 characters, of which Ray's own names leave few.
    with tempfile.TemporaryDirectory(prefix="ray") as short:
        done = subprocess.run(
            [*UNSHARE, *as_root, *command],
            cwd=ROOT,
            env=os.environ | environment(short),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    assert done.returncode == 0, done.stderr[-5000:]


def environment(folder: str) -> dict[str, str]:
    return {
        "HOME": folder,  # Ray leaves a token there
        "RAY_TMPDIR": folder,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHIA_DEVICE": "cpu",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "45",
    }


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def said(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}.json").read_text()))


@pytest.mark.parametrize("name", ["plain", "lossy"])
def test_files_are_those_of_one_machine_byte_for_byte(folder: Path, name: str) -> None:
    assert said(folder, name)["failed"] == said(folder, "alone")["failed"] == ""
    alone = files(folder / "alone")
    assert len(alone) == STEPS + 1
    assert files(folder / name) == alone


def test_a_process_and_a_machine_were_lost_in_the_middle(folder: Path) -> None:
    lost = said(folder, "lossy")["lost"]
    assert [each["files"] for each in lost] == [1, 3]
    assert all(each["did"] for each in lost)
