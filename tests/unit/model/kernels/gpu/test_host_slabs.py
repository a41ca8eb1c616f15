"""Weights that left the device come back from the host, as many as there is room for."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
import torch

from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu import host_slabs
from pythia_bento.model.kernels.gpu.host_slabs import HostSlabs, LockedMemory
from pythia_bento.model.kernels.gpu.slab import contiguous
from tests.unit.model.kernels.gpu.packed import CPU, packed

KEYS = "abcd"
WEIGHTS = {key: contiguous(packed(number), key.encode() * 32) for number, key in enumerate(KEYS)}
SIZE = len(WEIGHTS["a"].slab.memory)  # type: ignore[union-attr]


def slabs(count: int, *, locked: int | None = None) -> HostSlabs:
    """Room for ``count``, of which so many are locked already."""
    made = HostSlabs(CPU, SIZE, count * SIZE + 1)
    for key in KEYS[: count if locked is None else locked]:
        made.prepare()
        assert made.put(key, WEIGHTS[key])
    return made


def memory(weights: PackedWeights | None) -> torch.Tensor:
    assert weights is not None and weights.slab is not None
    return weights.slab.memory


def test_weights_come_back_as_they_were() -> None:
    host = slabs(2)
    for key in "ab":
        back = host.get(key)
        assert torch.equal(memory(back), memory(WEIGHTS[key]))
        assert memory(back).data_ptr() != memory(WEIGHTS[key]).data_ptr()
        assert back is not None and back.slab is not None
        assert back.slab.tag == key.encode() * 32
        assert torch.equal(back.layers[1].down, WEIGHTS[key].layers[1].down)
        assert back.head.scale == 1.0
    assert host.get("c") is None


def test_those_used_longest_ago_make_room() -> None:
    host = slabs(2)
    host.get("a")
    assert host.put("c", WEIGHTS["c"])
    assert host.keys == ["a", "c"]
    assert host.put("a", WEIGHTS["a"])  # it is there: used now
    assert host.put("d", WEIGHTS["d"])
    assert host.keys == ["a", "d"]
    assert torch.equal(memory(host.get("d")), memory(WEIGHTS["d"]))


def test_memory_is_locked_ahead_and_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = []

    class Noted(LockedMemory):
        def __init__(self, size: int, device: torch.device) -> None:
            super().__init__(size, device)
            locked.append(size)

    monkeypatch.setattr(host_slabs, "LockedMemory", Noted)
    host = slabs(2, locked=0)
    assert not host.put("a", WEIGHTS["a"])  # nobody waits for memory to be locked
    host.prepare()
    host.prepare()  # there is room for one more already
    assert locked == [SIZE]
    assert host.put("a", WEIGHTS["a"])
    for _ in range(3):
        host.prepare()
        assert host.put("b", WEIGHTS["b"]) and host.put("c", WEIGHTS["c"])
    assert locked == [SIZE, SIZE]


def test_where_nothing_can_be_locked_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(size: int, device: torch.device) -> LockedMemory:
        raise RuntimeError("out of pages")

    monkeypatch.setattr(host_slabs, "LockedMemory", refuse)
    host = slabs(2, locked=0)
    host.prepare()
    host.prepare()
    assert not host.put("a", WEIGHTS["a"])
    assert [record.message for record in caplog.records] == [
        "no more memory is locked for checkpoints: out of pages"
    ]


def test_weights_that_are_being_read_are_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    host = slabs(1)
    reading, go_on = threading.Event(), threading.Event()
    empty = torch.empty

    def slow(*args: object, **kwargs: object) -> torch.Tensor:
        reading.set()
        assert go_on.wait(60)
        return empty(*args, **kwargs)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "empty", slow)
    found: list[PackedWeights | None] = []
    thread = threading.Thread(target=lambda: found.append(host.get("a")))
    thread.start()
    assert reading.wait(60)
    assert not host.put("b", WEIGHTS["b"])
    go_on.set()
    thread.join()
    assert torch.equal(memory(found[0]), memory(WEIGHTS["a"]))
    assert host.put("b", WEIGHTS["b"])


def test_weights_without_a_slab_and_closed_slabs() -> None:
    host = slabs(1)
    assert not host.put("b", packed(1))
    host.close()
    host.prepare()
    assert host.keys == [] and host.get("a") is None
    assert not host.put("a", WEIGHTS["a"])


def test_a_device_that_failed_keeps_nothing_from_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    host = slabs(2)
    monkeypatch.setattr(host_slabs.Aside, "work", fail)
    host.close()
    assert host.keys == []


def test_what_is_locked_while_they_are_closed_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, unlocked = slabs(1, locked=0), []

    class Closing(LockedMemory):
        def __init__(self, size: int, device: torch.device) -> None:
            super().__init__(size, device)
            host.close()

        def unlock(self) -> None:
            unlocked.append(self)

    monkeypatch.setattr(host_slabs, "LockedMemory", Closing)
    host.prepare()
    assert len(unlocked) == 1
    assert not host.put("a", WEIGHTS["a"])


def test_many_threads_find_what_they_put() -> None:
    host, wrong = slabs(3), []

    def work(offset: int) -> None:
        for turn in range(60):
            key = KEYS[(turn * (offset + 1)) % 4]
            if turn % 2:
                host.put(key, WEIGHTS[key])
            elif (back := host.get(key)) is not None:
                wrong.append(not torch.equal(memory(back), memory(WEIGHTS[key])))

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong and not any(wrong)
    assert len(host.keys) == 3
    assert all(one != other for one, other in pairwise(host.keys))


def test_who_made_room_is_told_once() -> None:
    host = slabs(2)
    assert host.take_dropped() == []
    host.put("c", WEIGHTS["c"]), host.put("c", WEIGHTS["c"]), host.put("d", WEIGHTS["d"])
    assert host.take_dropped() == ["a", "b"]
    assert host.take_dropped() == []
