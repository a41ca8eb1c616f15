"""Starting: what stops a server from being ready, and the built Bento."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pythia_bento.checkpoints.bundle import BUNDLED_ROOT
from tests.e2e.serving import BENTOML, ROOT, START_SECONDS, environment, free_port

NAME = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--arg", "model=/nowhere/at/all"], "/nowhere/at/all"),
        (["--arg", "modle=bundled"], "modle is not a setting; known are model, "),
        pytest.param(
            ["--arg", "max_batch_size=0"],
            "setting max_batch_size (PYTHIA_MAX_BATCH_SIZE) must be",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_start_that_cannot_work_ends_at_once(
    home: Path, commands: Path, arguments: list[str], sentence: str
) -> None:
    run = _serve_in_vain(home, *arguments, bentoml=commands / "bentoml")
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert sentence in run.stderr.splitlines()[-1]


def test_a_port_that_is_taken_is_one_line(home: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        run = _serve_in_vain(home, "--port", str(taken.getsockname()[1]))
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("pythia-bento: the address to serve HTTP on is t")


@pytest.mark.long  # as test_grpc.py has a start that ends so
def test_damage_that_only_the_worker_finds(home: Path, commands: Path, tmp_path: Path) -> None:
    run = _serve_in_vain(home, bentoml=commands / "bentoml", model=_damaged(tmp_path))
    assert "Traceback" not in run.stderr
    [line] = [line for line in run.stderr.splitlines() if line.startswith("pythia-bento: ")]
    assert NAME in line and "not finite" in line


@pytest.mark.long
def test_damage_is_found_by_an_engine_in_a_process_of_its_own(
    home: Path, commands: Path, tmp_path: Path
) -> None:
    settings = {"model": _damaged(tmp_path), "engine_process": True}
    run = _serve_in_vain(home, bentoml=commands / "bentoml", **settings)
    [line] = [line for line in run.stderr.splitlines() if line.startswith("pythia-bento: ")]
    assert NAME in line and "not finite" in line


def _damaged(tmp_path: Path) -> Path:
    """A checkpoint whose config and shapes are good."""
    damaged = tmp_path / "damaged"
    shutil.copytree(BUNDLED_ROOT / "step64", damaged)
    tensors = load_file(damaged / "model.safetensors")
    tensors[NAME][3, 3] = torch.nan
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    return damaged


def _serve_in_vain(
    home: Path, *arguments: str, bentoml: Path | str = BENTOML, **settings: object
) -> subprocess.CompletedProcess[str]:
    """The server must end by itself."""
    return subprocess.run(
        [bentoml, "serve", "--port", str(free_port()), *arguments],
        cwd=ROOT,
        env=environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
