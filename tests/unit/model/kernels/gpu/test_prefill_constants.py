"""The kernels of many tokens compile, for every size of the suite, where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.common.random_model import SUITE
from pythia_bento import catalog
from pythia_bento.model.kernels.gpu.cuda.nvrtc import Source, compiled
from pythia_bento.model.kernels.gpu.cuda.prefill_constants import (
    SOURCES,
    TILES,
    constants_for,
    fits,
    largest_cluster,
    multiply_header,
    parts,
)
from tests.amounts import rest_long

SHARED = 232_448  # bytes of shared memory that a block of an H200 may have


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def binary(name: str, model: str, width: int, *, checked: bool = False) -> bytes:
    config = catalog.config(model)
    cluster = min(TILES[name][width], largest_cluster(config))
    constants = constants_for(config, width, SHARED, cluster, checked=checked)
    headers = {"multiply.cuh": multiply_header(width)}
    return compiled(Source(SOURCES[name], constants, headers), "sm_90a")


@pytest.mark.parametrize(
    "model", rest_long(["pythia-160m"], ["pythia-14m", "pythia-1b", "pythia-12b"])
)
@pytest.mark.parametrize("name", SOURCES)
def test_they_compile(name: str, model: str) -> None:
    assert binary(name, model, min(TILES[name])).startswith(b"\x7fELF")


@pytest.mark.long
@pytest.mark.parametrize("name", SOURCES)
def test_the_widest_compile(name: str) -> None:
    assert binary(name, "pythia-1b", max(TILES[name])).startswith(b"\x7fELF")


def test_a_checked_build_is_another_one() -> None:
    usual, checked = (binary("prefill_out", "pythia-70m", 64, checked=c) for c in (False, True))
    assert usual != checked


def test_every_size_of_the_suite_fits() -> None:
    assert all(fits(catalog.config(name)) for name in SUITE)
    assert [name for name in SUITE if largest_cluster(catalog.config(name)) == 1] == ["pythia-14m"]


@pytest.mark.parametrize("width", range(16, 257, 8))
def test_a_cluster_loads_whole_groups_of_every_tile(width: int) -> None:
    assert parts(width, 1) == (width,)
    first, second = parts(width, 2)
    assert first + second == width
    assert first % 8 == 0 and second % 8 == 0 and 0 <= first - second <= 8
