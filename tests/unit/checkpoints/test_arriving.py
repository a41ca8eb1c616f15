"""Parts of a model are used while its files are read, and none of it is if one file is another."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pythia_bento.checkpoints import arriving, files
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.held_files import ReadOnce
from pythia_bento.checkpoints.quantize import CheckpointWeights
from pythia_bento.checkpoints.read_once import open_entry
from pythia_bento.checkpoints.save import save_int8
from pythia_bento.checkpoints.shelf import ShelfEntry, entry_of
from pythia_bento.checkpoints.tensor_names import part_of
from pythia_bento.errors import CheckpointError
from pythia_bento.model.weights import Part, parts

WAIT = 60.0  # seconds until a thread that does not come is given up


@pytest.fixture
def entry(original: Path, tmp_path: Path) -> ShelfEntry:
    """A checkpoint in 8 bits, in four files: embedding, two layers, head."""
    path = tmp_path / "int8"
    source = CheckpointWeights(original, read_config(original / "config.json"))
    save_int8(source, original, path, shard_bytes=1)
    return entry_of(load_checkpoint(str(path)))


class Gate:
    """Lets no byte of one file through that follows its header, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self._open, self.reached = threading.Event(), threading.Event()
        self._was_left_shut = False
        inner, header = arriving.Source.read, 8 + int.from_bytes(path.read_bytes()[:8], "little")

        def read(source: arriving.Source, into: memoryview, start: int) -> memoryview:
            if source._name == path.name and header <= start < source.size - arriving.END:
                self.reached.set()
                if not self._open.wait(WAIT):
                    self._was_left_shut = True
                    raise TimeoutError("nobody opened the gate")
            return inner(source, into, start)

        monkeypatch.setattr(arriving.Source, "read", read)

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def open(self) -> None:
        """Whoever waited behind it has not given up: until now nothing went through."""
        assert not self._was_left_shut
        self._open.set()


@pytest.fixture(autouse=True)
def small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files were large."""
    monkeypatch.setattr(arriving, "CHUNK", 1 << 10)
    monkeypatch.setattr(arriving, "AHEAD", 1 << 12)
    monkeypatch.setattr(arriving, "BEGIN", 1 << 12)
    monkeypatch.setattr(arriving, "END", 64)


def file_of(entry: ShelfEntry, part: Part) -> Path:
    """The one that has the tensors of a part."""
    with closing(open_entry(entry)) as opened:
        found = {one.file for name, one in opened.reader.entries() if part_of(name) == part}
    [path] = found
    return path


def get(opened: ReadOnce, part: Part) -> Any:
    if part == "embedding":
        return opened.embedding()
    return opened.head() if part == "head" else opened.layer(part)


def spoil(path: Path, place: int) -> None:
    """Change one byte where it lies."""
    with path.open("r+b") as file:
        file.seek(place)
        [old] = file.read(1)
        file.seek(place)
        file.write(bytes([old ^ 1]))


Readers = Callable[[], list[threading.Thread]]


@pytest.fixture
def readers() -> Readers:
    """Threads that read, hash or give memory back, beside those that others have left."""
    gc.collect()
    others = {*threading.enumerate()}

    def found() -> list[threading.Thread]:
        prefixes = ("pythia-read", "pythia-hash", "pythia-free")
        threads = (one for one in threading.enumerate() if one not in others)
        return [one for one in threads if one.name.startswith(prefixes)]

    return found


@pytest.mark.parametrize("late", ["embedding", 0, 1, "head"])
def test_parts_are_handed_out_while_a_file_is_read(
    entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch, late: Part
) -> None:
    others = [part for part in parts(entry.config) if part != late]
    gate = Gate(monkeypatch, file_of(entry, late))
    with closing(open_entry(entry, 2)) as opened:
        given = []
        for part in opened.order():
            assert gate.is_open == (part == late)
            given.append(part)
            get(opened, part)
            if len(given) == len(others):
                gate.open()
    assert {*given[:-1]} == {*others} and given[-1] == late


@pytest.mark.parametrize("late", ["embedding", "head"])
def test_the_last_part_is_brought_while_it_arrives(
    entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch, late: Part
) -> None:
    gate = Gate(monkeypatch, file_of(entry, late))
    brought: list[bool] = []

    def bring(tensor: torch.Tensor, until: Callable[[int], None]) -> torch.Tensor:
        if tensor.dtype == torch.float16:  # the table or the head
            until(16)
            brought.append(gate.is_open)
            if len(brought) == 2:
                gate.open()
        until(tensor.nbytes)
        return tensor.clone()

    with closing(open_entry(entry, bring=bring)) as opened:
        given = [(part, get(opened, part)) for part in opened.order()]
    assert given[-1][0] == late and brought == [False, False]
    source = CheckpointWeights(entry.path, entry.config)
    if late == "head":
        assert torch.equal(given[-1][1].weight, source.head().weight)
    else:
        assert torch.equal(given[-1][1], source.embedding())


def test_it_is_told_once_that_nothing_is_left_to_be_read(
    entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, told = Gate(monkeypatch, file_of(entry, 1)), threading.Semaphore(0)
    with closing(open_entry(entry, on_read=told.release)) as opened:
        opened.embedding()
        assert gate.reached.wait(WAIT) and not told.acquire(blocking=False)
        gate.open()
        assert told.acquire(timeout=WAIT)
        opened.embedding()  # read once more
        opened.verify()
    assert not told.acquire(blocking=False)


def test_the_end_of_a_file_comes_first(entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are the words on how a weight lies, without which no linear is a linear."""
    path = file_of(entry, 0)
    gate = Gate(monkeypatch, path)
    with closing(open_entry(entry)) as opened:
        name = next(name for name, _ in opened.reader.entries() if name.endswith("weight_format"))
        assert opened.reader.tensor(name) == 0
        assert gate.reached.wait(WAIT) and not gate.is_open
        gate.open()


def test_no_file_is_waited_for_to_know_what_is_in_the_others(
    entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few are read at a time: the ends of all come before the rest of any."""
    gate = Gate(monkeypatch, file_of(entry, "embedding"))
    with closing(open_entry(entry, 1)) as opened:
        assert {part_of(name) for name, _ in opened.reader.entries()} == {*parts(entry.config)}
        assert gate.reached.wait(WAIT) and not gate.is_open
        gate.open()


@pytest.mark.parametrize("begin", [4, 100])
def test_a_header_may_be_longer_than_what_comes_first(
    entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch, begin: int
) -> None:
    monkeypatch.setattr(arriving, "BEGIN", begin)
    with closing(open_entry(entry)) as opened:
        assert len([get(opened, part) for part in opened.order()]) == len(parts(entry.config))


@pytest.mark.parametrize("damaged", ["embedding", 0, 1, "head"])
def test_nobody_gets_a_whole_model_before_all_of_it_was_compared(
    entry: ShelfEntry, readers: Readers, damaged: Part
) -> None:
    path = file_of(entry, damaged)
    spoil(path, path.stat().st_size // 2)  # a weight like any other
    refused = pytest.raises(CheckpointError, match=f"{path.name} has sha256 ")
    with refused, closing(open_entry(entry)) as opened:  # which may be told that early
        for part in opened.order():
            get(opened, part)
    assert not readers()


def test_the_last_part_waits_for_every_byte(entry: ShelfEntry) -> None:
    """Also for what is in a file and of no use: the mask of old versions."""
    first = file_of(entry, 0)
    stored = load_file(first)
    stored["gpt_neox.layers.0.attention.bias"] = torch.zeros(64, 1024, dtype=torch.uint8)
    save_file(stored, first, metadata={"format": "pt"})
    changed = replace(entry, files={**entry.files, first.name: files.sha256(first)})
    with closing(open_entry(changed)) as opened:
        assert [get(opened, part) for part in opened.order()]
    spoil(first, first.stat().st_size - 2000)
    with pytest.raises(CheckpointError, match="has sha256"), closing(open_entry(changed)) as opened:
        for part in parts(entry.config):
            get(opened, part)


def test_what_changes_while_it_is_read_is_refused(
    entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(entry, 1)
    gate = Gate(monkeypatch, path)
    with closing(open_entry(entry)) as opened:
        assert gate.reached.wait(WAIT)
        spoil(path, path.stat().st_size - 3000)
        gate.open()
        with pytest.raises(CheckpointError, match=f"{path.name} has sha256 "):
            for part in parts(entry.config):
                get(opened, part)


def test_a_file_that_shrinks_while_it_is_read_is_refused(
    entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(entry, 1)
    gate = Gate(monkeypatch, path)
    with closing(open_entry(entry)) as opened:
        assert gate.reached.wait(WAIT)
        os.truncate(path, 8)
        gate.open()
        with pytest.raises(CheckpointError, match=f"{path.name} became shorter while it was read"):
            for part in parts(entry.config):
                get(opened, part)


@pytest.mark.parametrize("place", [0, 7, 8, 40])
def test_a_damaged_header_is_a_file_that_is_another(
    entry: ShelfEntry, readers: Readers, place: int
) -> None:
    """That is what there is to be said, not what the header then means."""
    path = file_of(entry, 0)
    spoil(path, place)
    refused = pytest.raises(CheckpointError, match=f"{path.name} has sha256 ")
    with refused, closing(open_entry(entry)) as opened:
        for part in parts(entry.config):
            get(opened, part)
    assert not readers()


def test_closing_ends_what_is_under_way(
    entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch, readers: Readers
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    gate = Gate(monkeypatch, file_of(entry, 0))
    opened = open_entry(entry, 1)
    opened.embedding()
    assert gate.reached.wait(WAIT) and readers()
    closing_it = threading.Thread(target=opened.close)
    closing_it.start()
    gate.open()
    closing_it.join(WAIT)
    assert not readers()
    assert len(os.listdir("/proc/self/fd")) == before
    opened.close()


def test_who_is_forgotten_reads_no_more(
    entry: ShelfEntry, monkeypatch: pytest.MonkeyPatch, readers: Readers
) -> None:
    gate = Gate(monkeypatch, file_of(entry, 0))
    opened = open_entry(entry, 1)
    assert gate.reached.wait(WAIT)
    threads, stopped = readers(), opened._readers
    del opened
    assert stopped.is_stopped
    del stopped
    gate.open()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
