"""Kernels made by the compiler that a machine without one gets: they run, with the same bits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pythia_bento.model.kernels.cpu import build

ROOT = Path(__file__).parents[2]
MADE = shutil.ignore_patterns("__pycache__", "*.so")


@pytest.fixture(scope="module")
def ziglang(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import it from."""
    environment = tmp_path_factory.mktemp("zig") / "venv"
    install = [sys.executable, "tools/install.py", "lock", environment]
    subprocess.run([*install, "requirements/compiler.txt"], cwd=ROOT, check=True)
    return next(environment.glob("lib/python*/site-packages"))


@pytest.mark.long  # it downloads a compiler
def test_kernels_of_ziglang_give_the_recorded_answers(ziglang: Path, tmp_path: Path) -> None:
    for name in ("pythia_bento", "bench"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=MADE)
    cache = tmp_path / "cache"
    variables = {
        "PATH": os.devnull,  # no compiler of this machine
        "PYTHONPATH": str(ziglang),
        "ZIG_GLOBAL_CACHE_DIR": str(cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache),
    }
    answers = ["bench.common.answers", "bench/results/answers-cpu.json", "--models", "bundled"]
    done = subprocess.run(
        [sys.executable, "-m", *answers],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "CXX"} | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 changed" in done.stdout
    made = [path.name for path in (tmp_path / "pythia_bento").rglob("*.so")]
    assert made == [build.library(build.supported()[0]).name]
