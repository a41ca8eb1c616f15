"""The fingerprint follows the sources that decide bits, on every machine alike."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pythia_bento.model import kernels
from pythia_bento.runtime import loading, sources
from pythia_bento.runtime.sources import FOLDERS, PACKAGE, sources_hash
from pythia_bento.settings import Settings

CHANGES = {
    "model/kernels/cpu/src/matmul.h": {"cpu"},
    "model/kernels/cpu/build.py": {"cpu"},  # compilers' flags
    "model/kernels/gpu/cuda/decode/attention.cuh": {"triton"},
    "model/kernels/gpu/cuda/prefill/prefill_in.cu": {"triton"},
    "model/kernels/gpu/triton/products.py": {"triton"},
    "model/kernels/reference/linear.py": {"reference"},
    "model/kernels/by_layer.py": set(FOLDERS),
    "model/sampling.py": set(FOLDERS),
    "engine/penalties.py": set(FOLDERS),
    "executor/prompt_scores.py": set(FOLDERS),
    "checkpoints/quantize.py": set(FOLDERS),
    "checkpoints/hub.py": set(),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of what is hashed, with what a machine leaves beside it."""
    bundled = shutil.ignore_patterns("bundled", "__pycache__", "lib")
    return Path(shutil.copytree(PACKAGE, tmp_path / "elsewhere", ignore=bundled))


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    """Of the package as it is, which its copies have too."""
    return hashes(PACKAGE)


def hashes(package: Path) -> dict[str, str]:
    return {backend: sources_hash(backend, package) for backend in FOLDERS}


def test_every_backend_has_a_hash_of_its_own() -> None:
    assert set(FOLDERS) == set(kernels.BACKENDS)
    assert len({sources_hash(backend) for backend in FOLDERS}) == len(FOLDERS)


@pytest.mark.parametrize(("name", "changed"), CHANGES.items())
def test_a_changed_source_changes_the_hash(
    package: Path, before: dict[str, str], name: str, changed: set[str]
) -> None:
    (package / name).write_text((package / name).read_text() + "\n")
    after = hashes(package)
    assert {backend for backend in FOLDERS if before[backend] != after[backend]} == changed


def test_neither_place_nor_time_nor_what_was_compiled_changes_it(package: Path) -> None:
    for name in ("model/kernels/cpu/lib/pythia-avx2-0.so", "model/__pycache__/rotary.pyc"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_bytes(b"of this machine")
    os.utime(package / "model/rotary.py", (0, 0))
    assert hashes(package) == hashes(PACKAGE)


def test_moving_text_between_files_changes_it(package: Path) -> None:
    before = hashes(package)
    one, next_one = sorted((package / "model/kernels/cpu/src").glob("*.h"))[:2]
    text = one.read_bytes()
    one.write_bytes(text[:-1])
    next_one.write_bytes(text[-1:] + next_one.read_bytes())
    assert sources_hash("cpu", package) != before["cpu"]


def test_the_version_of_numerics_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(PACKAGE)
    monkeypatch.setattr(sources, "NUMERICS_VERSION", sources.NUMERICS_VERSION + 1)
    assert not set(before.values()) & set(hashes(PACKAGE).values())


@pytest.mark.parametrize(
    ("backend", "kernel"), [("cpu", "cpu/src/matmul.h"), ("reference", "reference/linear.py")]
)
def test_the_fingerprint_has_the_hash_of_its_backend(
    package: Path, monkeypatch: pytest.MonkeyPatch, backend: str, kernel: str
) -> None:
    settings = Settings(model="bundled", device="cpu", backend=backend, kv_cache_gb=0.01)

    def fingerprint() -> str:
        engine, info = loading.load_engine(settings, lambda what, done, total: None)
        engine.close()
        return info.fingerprint

    before = fingerprint()
    assert before.endswith(f"-{sources_hash(backend)}-{backend}-w8a16")
    kernel = next(
        (package / "model/kernels" / backend).rglob("matmul.h" if backend == "cpu" else "linear.py")
    )
    kernel.write_text(kernel.read_text().replace("1", "2", 1))
    monkeypatch.setattr(loading, "sources_hash", lambda name: sources_hash(name, package))
    assert fingerprint() != before
