"""Memory that captures go to; ``tests/gpu/test_taps.py`` has what a GPU does with it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pythia_bento.executor import capture_memory
from pythia_bento.executor.capture_memory import CaptureMemory


def test_without_a_gpu_the_host_writes() -> None:
    memory = CaptureMemory(np.zeros(64, np.uint8), torch.device("cpu"))
    before = threading.active_count()
    assert memory.stream() is None and threading.active_count() == before
    memory.settle()
    memory.close()


class Runtime:
    """Of CUDA, what locks memory; the real one needs a device."""

    def __init__(self, status: int) -> None:
        self.status, self.locked = status, set[int]()
        self.may_lock = threading.Event()

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        self.may_lock.wait(60)
        if self.status == 0:
            self.locked.add(address)
        return self.status

    def cudaHostUnregister(self, address: int) -> None:
        self.locked.remove(address)


def runtime(monkeypatch: pytest.MonkeyPatch, status: int) -> Runtime:
    found = Runtime(status)
    monkeypatch.setattr(capture_memory, "_runtime", lambda: found)
    monkeypatch.setattr(torch.cuda, "device", lambda device: threading.Lock())
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(device=device))
    return found


def on_gpu() -> CaptureMemory:
    return CaptureMemory(np.zeros(10_000, np.uint8), torch.device("cuda"))


def test_the_host_writes_until_the_memory_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, memory = runtime(monkeypatch, 0), on_gpu()
    assert memory.stream() is None and memory.stream() is None
    cuda.may_lock.set()
    memory.settle()
    assert memory.stream() is not None and cuda.locked == {memory.array.ctypes.data}
    memory.close()
    assert memory.stream() is None and not cuda.locked
    memory.close()


def test_memory_that_nobody_has_any_more_is_not_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, memory = runtime(monkeypatch, 0), on_gpu()
    cuda.may_lock.set()
    memory.stream()
    memory.settle()
    assert cuda.locked
    del memory
    assert not cuda.locked


def test_what_is_closed_while_it_is_being_locked_is_unlocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, memory = runtime(monkeypatch, 0), on_gpu()
    memory.stream()
    memory.close()
    cuda.may_lock.set()
    memory.settle()
    assert memory.stream() is None and not cuda.locked


def test_where_it_cannot_be_locked_the_host_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cuda, memory = runtime(monkeypatch, 1), on_gpu()
    cuda.may_lock.set()
    for _ in range(2):
        memory.stream()
        memory.settle()
    assert memory.stream() is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
