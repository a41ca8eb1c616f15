"""How memory is shared out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pythia_bento.catalog import SIZES, int8_bytes
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf import Shelf, entry_of
from pythia_bento.model.kernels.base import pass_bytes
from pythia_bento.model.kernels.gpu.slab import contiguous
from pythia_bento.runtime import memory_plan
from pythia_bento.runtime.memory_plan import Plan, plan
from pythia_bento.settings import Settings, SettingsError
from tests.unit.model.kernels.gpu.packed import CPU, packed

CONFIG = SIZES["1b"].config
GB = 10**9
KEPT = 2 * GB  # beside the weights of one checkpoint
BLOCK = 2 * CONFIG.num_layers * CONFIG.hidden_size * 64 * 2


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(entry_of(load_checkpoint("bundled")), "bundled@*")


def planned(
    monkeypatch: pytest.MonkeyPatch, free: float, device: str, shelf: Shelf | None, **settings: Any
) -> Plan:
    monkeypatch.setattr(memory_plan, "free_bytes", lambda device: int(free * GB))
    backend = SimpleNamespace(
        config=CONFIG,
        device=torch.device(device),
        block_size=64,
        kv_bytes_per_block=lambda: BLOCK,
        kept_bytes=KEPT,
    )
    return plan(Settings(**settings), backend, 2048, shelf)  # type: ignore[arg-type]


def test_one_checkpoint_has_the_device_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    found = planned(monkeypatch, 141, "cuda", None)
    assert found.capacity == 1 and 60 * GB < found.num_blocks * BLOCK < 127 * GB


def test_what_one_checkpoint_keeps_is_no_room_for_keys_and_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = pass_bytes(CONFIG, Settings().batch_size("cuda"), 2048)
    found = planned(monkeypatch, 12, "cuda", None)
    assert found.num_blocks == int((12 * GB - passes - KEPT) * 0.9) // BLOCK


def test_a_gpu_holds_a_hundred_of_1b_beside_8_gb_of_keys_and_values(
    monkeypatch: pytest.MonkeyPatch, shelf: Shelf
) -> None:
    found = planned(monkeypatch, 147, "cuda", shelf)
    assert 7.9 * GB < found.num_blocks * BLOCK <= 8 * GB and found.capacity >= 100
    assert planned(monkeypatch, 147, "cuda", shelf, models_gb=10).capacity == 7


def test_a_gpu_has_room_for_the_parts_of_one_that_comes(
    monkeypatch: pytest.MonkeyPatch, shelf: Shelf
) -> None:
    size, passes = int8_bytes(CONFIG), pass_bytes(CONFIG, Settings().batch_size("cuda"), 2048)
    for free in range(10, 40):
        found = planned(monkeypatch, free, "cuda", shelf, kv_cache_gb=2)
        others = (found.capacity - 1) * size  # the first is there already
        spare = free * GB - passes - found.num_blocks * BLOCK - size - others
        assert 1.25 * size <= spare < 3.5 * size


def test_on_a_cpu_half_of_what_is_free_is_for_checkpoints(
    monkeypatch: pytest.MonkeyPatch, shelf: Shelf
) -> None:
    assert planned(monkeypatch, 24, "cpu", shelf).capacity == 1 + int(12 * GB / int8_bytes(CONFIG))


@pytest.mark.parametrize(
    ("device", "copy"), [("cuda", " and the active copy as much"), ("cpu", ",")]
)
def test_a_shelf_without_room_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, shelf: Shelf, device: str, copy: str
) -> None:
    said = r"models_gb \(PYTHIA_MODELS_GB\) is 1.5, but one checkpoint of this shape takes 1.219 GB"
    with pytest.raises(SettingsError, match=said + copy):
        planned(monkeypatch, 100, device, shelf, models_gb=1.5)
    with pytest.raises(SettingsError, match=r"GB are free, but one checkpoint"):
        planned(monkeypatch, 1, device, shelf, kv_cache_gb=0.1)


@pytest.mark.parametrize(("slabs", "kept"), [(None, 2), (0, 0), (1.5, 1)])
def test_the_host_keeps_what_its_memory_allows(
    monkeypatch: pytest.MonkeyPatch, slabs: float | None, kept: int
) -> None:
    weights = contiguous(packed(1), b"t" * 32)
    assert weights.slab is not None
    size = len(weights.slab.memory)
    monkeypatch.setattr(memory_plan, "free_memory", lambda: 5 * size)
    settings = Settings(host_models_gb=None if slabs is None else slabs * size / GB)
    host = memory_plan.host_slabs(settings, weights, CPU)
    assert host is not None
    for number in range(3):
        host.prepare()
        host.put(str(number), weights)
    assert len(host.keys) == kept
    assert memory_plan.host_slabs(settings, packed(1), CPU) is None
