"""What is loaded next is read while the disk has nothing else to do, and nothing depends on it."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pythia_bento.checkpoints import read_ahead
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.read_ahead import ReadAhead
from pythia_bento.checkpoints.shelf import ShelfEntry, entry_of

WAIT = 60.0  # seconds until a thread that does not come is given up


class Asked:
    """What the system was asked to read: (size of the file, start)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places: list[tuple[int, int]] = []
        self.gate, self.reached = threading.Event(), threading.Event()
        self.gate.set()
        inner = os.posix_fadvise

        def advise(descriptor: int, start: int, count: int, advice: int) -> None:
            self.places.append((os.fstat(descriptor).st_size, start))
            self.reached.set()
            assert self.gate.wait(WAIT)
            inner(descriptor, start, count, advice)

        monkeypatch.setattr(os, "posix_fadvise", advise)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


@pytest.fixture
def entry() -> ShelfEntry:
    return entry_of(load_checkpoint("bundled"))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "PIECE", 1 << 16)


def finish() -> None:
    for thread in threading.enumerate():
        if thread.name == "pythia-ahead":
            thread.join(WAIT)
            assert not thread.is_alive()


def test_all_of_the_weights_are_asked_for(entry: ShelfEntry, asked: Asked) -> None:
    ahead = ReadAhead()
    ahead.next = entry
    ahead.begin()
    finish()
    sizes = {path.stat().st_size for path in entry.path.glob("*.safetensors")}
    wanted = {(size, start) for size in sizes for start in range(0, size, 1 << 16)}
    assert {*asked.places} == wanted and len(asked.places) == len(wanted) > 1


def test_no_more_than_the_most(
    entry: ShelfEntry, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "MOST", 100_000)
    ahead = ReadAhead()
    ahead.next = entry
    ahead.begin()
    finish()
    assert [start for _, start in asked.places] == [0, 1 << 16]


def test_it_ends_when_it_is_told_to(entry: ShelfEntry, asked: Asked) -> None:
    asked.gate.clear()
    ahead = ReadAhead()
    ahead.next = entry
    ahead.begin()
    assert asked.reached.wait(WAIT)
    ahead.stop()
    asked.gate.set()
    finish()
    assert len(asked.places) == 1


def test_nothing_is_read_where_nobody_comes_next(asked: Asked) -> None:
    ReadAhead().begin()
    finish()
    assert asked.places == []


def test_what_cannot_be_read_is_nobodys_error(
    entry: ShelfEntry, asked: Asked, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "nowhere"):
        ahead = ReadAhead()
        ahead.next = replace(
            entry, path=path, files={"model.safetensors": "", "gone.safetensors": ""}
        )
        ahead.begin()
        finish()
    assert asked.places == []
