"""What the allocator keeps is given back after work."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from pythia_bento.server import memory
from pythia_bento.server.access.control import InFlight
from pythia_bento.server.memory import BUSY_SECONDS, IDLE_LOOKS, LOOK_SECONDS, Trimming, trim

# Prints how many arenas glibc has once eight threads have had memory of it at the same time.
ARENAS_OF_THREADS = """
import ctypes, re, sys, threading
from pythia_bento.server import memory
memory.limit_arenas()
meet = threading.Barrier(8)
def take():
    held = bytes(100_000)
    meet.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file), libc.fclose(file)
print(len(re.findall("<heap nr=", open(sys.argv[1]).read())))
"""


@pytest.fixture
def trims() -> list[bool]:
    return []


async def test_after_each_time_of_work_and_while_connections_close(trims: list[bool]) -> None:
    in_flight = InFlight()
    trimming = Trimming(in_flight, trims.append)
    await trimming.look()
    assert trims == []  # nothing was done
    in_flight.enter()
    await trimming.look()
    assert trims == []  # it is being done
    in_flight.leave()
    for _ in range(2 * IDLE_LOOKS):
        await trimming.look()
    assert trims == [True] * IDLE_LOOKS  # idle, and then left alone


async def test_now_and_then_where_requests_are_always_open(trims: list[bool]) -> None:
    in_flight = InFlight()
    trimming = Trimming(in_flight, trims.append)
    for _ in range(2 * int(BUSY_SECONDS / LOOK_SECONDS)):
        in_flight.enter()
        await trimming.look()
    assert trims == [False, False]


async def test_it_looks_from_start_to_stop(
    trims: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.001)
    in_flight = InFlight()
    in_flight.enter()
    in_flight.leave()
    trimming = Trimming(in_flight, trims.append)
    trimming.start()
    while not trims:
        await asyncio.sleep(0.001)
    trimming.stop()
    assert set(trims) == {True}  # idle


def test_cycles_are_freed_where_nobody_waits() -> None:
    class Kept:
        pass

    kept = Kept()
    kept.itself = kept  # type: ignore[attr-defined]
    found = weakref.ref(kept)
    gc.disable()
    try:
        del kept
        trim(is_idle=False)
        assert found() is not None
        trim(is_idle=True)
        assert found() is None
    finally:
        gc.enable()


def test_freed_pages_are_the_systems_again() -> None:
    """Small pieces: large ones come from the system and go back to it one by one."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    pieces = [libc.malloc(50_000) for _ in range(2000)]
    for piece in pieces:
        ctypes.memset(piece, 1, 50_000)
    last = libc.malloc(50_000)  # behind them all, so that they are not the end of the heap
    for piece in pieces:
        libc.free(piece)
    before = _resident()
    trim(is_idle=False)
    after = _resident()
    libc.free(last)
    assert before - after > 50 * 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_threads_share_few_arenas(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ARENAS_OF_THREADS, str(tmp_path / "info")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= memory.ARENAS
