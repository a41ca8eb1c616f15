"""Loading on a thread: what became of it is told once, and nothing but ``close`` ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pythia_bento.catalog import SIZES
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.members import Loaded, LoadEnd
from pythia_bento.errors import CheckpointError, EngineUnavailable
from pythia_bento.model.kernels.gpu.host_slabs import HostSlabs
from pythia_bento.model.kernels.gpu.slab import contiguous
from pythia_bento.runtime.loader import ThreadLoader
from tests.unit.engine.toy import TOKENIZER
from tests.unit.model.kernels.gpu.packed import CPU, packed

Report = Callable[[int, int], None]


@pytest.fixture
def entry(tmp_path: Path) -> ShelfEntry:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    files = {"model.safetensors": "0" * 64}
    config = SIZES["14m"].config
    name = "toy@step3"
    return ShelfEntry(name, (name,), 3, None, tmp_path, files, "key", config, 1, "", (), 0)


def end_of(loader: ThreadLoader) -> LoadEnd:
    for _ in range(6000):
        loader.wait(0.01)
        if (end := loader.take()) is not None:
            assert loader.take() is None
            return end
    raise AssertionError("nothing came")


@pytest.fixture
def fault() -> list[Exception]:
    return []


@pytest.fixture
def loader(fault: list[Exception]) -> Iterator[ThreadLoader]:
    def load(entry: ShelfEntry, report: Report) -> Loaded:
        report(1, 2)
        if fault:
            raise fault[0]
        return Loaded(entry.weights, TOKENIZER, b"root")

    made = ThreadLoader(load)
    yield made
    made.close()
    assert not any(thread.name == "pythia-loader" for thread in threading.enumerate())


def test_what_was_loaded_comes_once(loader: ThreadLoader, entry: ShelfEntry) -> None:
    assert loader.take() is None
    for number in range(3):
        loader.begin("key", entry)
        key, found = end_of(loader)
        assert isinstance(found, Loaded) and (key, found.weights) == ("key", "key")
        assert loader.progress == number + 1


@pytest.mark.parametrize(
    ("error", "found", "message"),
    [
        (CheckpointError("damaged"), CheckpointError, "damaged"),
        (MemoryError(), MemoryError, ""),
        (RuntimeError("[enforce fail] not enough memory: you tried"), MemoryError, ""),
        (ZeroDivisionError(), CheckpointError, "toy@step3 will not be served: ZeroDivisionError"),
    ],
)
def test_what_fails_is_told_and_the_next_is_loaded(
    loader: ThreadLoader,
    entry: ShelfEntry,
    fault: list[Exception],
    error: Exception,
    found: type[Exception],
    message: str,
) -> None:
    fault.append(error)
    loader.begin("key", entry)
    end = end_of(loader)
    assert isinstance(end.found, found) and message in str(end.found)
    fault.clear()
    loader.begin("key", entry)
    assert isinstance(end_of(loader).found, Loaded)


def test_a_failure_holds_until_a_file_is_another(
    loader: ThreadLoader, entry: ShelfEntry, fault: list[Exception]
) -> None:
    fault.append(CheckpointError("damaged"))
    loader.begin("key", entry)
    end_of(loader)
    assert not loader.has_changed(entry)
    (entry.path / "model.safetensors").write_bytes(b"other weights")
    assert loader.has_changed(entry)


def test_what_is_under_way_is_given_up_with_its_next_part(entry: ShelfEntry) -> None:
    under_way, go_on, got = threading.Event(), threading.Event(), []

    def load(entry: ShelfEntry, report: Report) -> Loaded:
        report(1, 3)
        under_way.set()
        assert go_on.wait(60)
        report(2, 3)
        got.append(entry)
        return Loaded(entry.weights, TOKENIZER, b"root")

    loader = ThreadLoader(load)
    loader.begin("key", entry)
    assert under_way.wait(60)
    closing = threading.Thread(target=loader.close)
    closing.start()
    while not loader._is_closed:
        closing.join(0.01)
    go_on.set()
    closing.join(60)
    assert not closing.is_alive() and not got
    end = loader.take()
    assert end is not None and isinstance(end.found, EngineUnavailable)
    assert not any(thread.name == "pythia-loader" for thread in threading.enumerate())


def test_who_waits_is_woken(loader: ThreadLoader) -> None:
    waiting = threading.Thread(target=loader.wait, args=(3600,), daemon=True)
    waiting.start()
    for _ in range(6000):
        loader.wake()
        waiting.join(0.01)
        if not waiting.is_alive():
            return
    raise AssertionError("it waits on")


def test_what_leaves_the_device_is_kept_where_there_is_room() -> None:
    weights = contiguous(packed(1), b"t" * 32)
    assert weights.slab is not None
    host = HostSlabs(CPU, len(weights.slab.memory), len(weights.slab.memory))

    def load(entry: ShelfEntry, report: Report) -> Loaded:
        raise AssertionError("nothing is loaded")

    kept, not_kept = ThreadLoader(load, host), ThreadLoader(load)
    assert not not_kept.keep("a", weights)
    assert not kept.keep("a", weights)
    host.prepare()
    assert kept.keep("a", weights)
    assert host.keys == ["a"]
    not_kept.close()
    kept.close()
    assert host.keys == []
