"""The persistent kernel compiles, for every size of the suite, where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.common.random_model import SUITE
from pythia_bento import catalog
from pythia_bento.model.kernels.gpu.cuda.decode_constants import (
    BATCHES,
    SOURCE,
    constants_for,
    fits,
)
from pythia_bento.model.kernels.gpu.cuda.nvrtc import Source, compiled
from tests.amounts import rest_long

HOPPER = (132, 232_448)  # multiprocessors, bytes of shared memory that a block may have


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pythia-bento"


def largest(name: str) -> int:
    return max(batch for batch in BATCHES if fits(catalog.config(name), batch))


@pytest.mark.parametrize(
    "name", rest_long(["pythia-14m"], ["pythia-160m", "pythia-1b", "pythia-2.8b"])
)
def test_it_compiles(name: str, cache: Path) -> None:
    constants = constants_for(catalog.config(name), largest(name), *HOPPER)
    binary = compiled(Source(SOURCE, constants), "sm_90a")
    assert binary.startswith(b"\x7fELF")
    [kept] = cache.iterdir()
    assert kept.read_bytes() == binary
    kept.write_bytes(b"kept")
    assert compiled(Source(SOURCE, constants), "sm_90a") == b"kept"


def test_what_does_not_compile_says_why(tmp_path: Path) -> None:
    source = tmp_path / "wrong.cu"
    source.write_text("no kernel")
    with pytest.raises(RuntimeError, match=r"wrong\.cu does not compile: .*error"):
        compiled(Source(source, {}), "sm_90a")


def test_a_device_with_too_little_memory_is_refused() -> None:
    constants = constants_for(catalog.config("pythia-1b"), 8, 132, 48_000)
    with pytest.raises(RuntimeError, match="room for the weights"):
        compiled(Source(SOURCE, constants), "sm_90a")


def test_how_many_sequences_every_size_decodes_so() -> None:
    assert {name: largest(name) for name in SUITE} == {
        **dict.fromkeys(("pythia-14m", "pythia-31m", "pythia-70m", "pythia-160m"), 8),
        **dict.fromkeys(("pythia-410m", "pythia-1b", "pythia-1.4b", "pythia-2.8b"), 8),
        **{"pythia-6.9b": 4, "pythia-12b": 4},
    }
