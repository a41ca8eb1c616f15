"""What the allocator keeps is given back after work."""

from __future__ import annotations

import asyncio
import ctypes
from pathlib import Path

import pytest

from pythia_bento.server import memory
from pythia_bento.server.access.control import InFlight
from pythia_bento.server.memory import BUSY_SECONDS, LOOK_SECONDS, Trimming, trim


@pytest.fixture
def trims() -> list[int]:
    return []


async def test_once_after_each_time_of_work(trims: list[int]) -> None:
    in_flight = InFlight()
    trimming = Trimming(in_flight, lambda: trims.append(1))
    await trimming.look()
    assert trims == []  # nothing was done
    in_flight.enter()
    await trimming.look()
    assert trims == []  # it is being done
    in_flight.leave()
    for _ in range(3):
        await trimming.look()
    assert trims == [1]


async def test_now_and_then_where_requests_are_always_open(trims: list[int]) -> None:
    in_flight = InFlight()
    trimming = Trimming(in_flight, lambda: trims.append(1))
    for _ in range(2 * int(BUSY_SECONDS / LOOK_SECONDS)):
        in_flight.enter()
        await trimming.look()
    assert trims == [1, 1]


async def test_it_looks_from_start_to_stop(
    trims: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.001)
    in_flight = InFlight()
    in_flight.enter()
    in_flight.leave()
    trimming = Trimming(in_flight, lambda: trims.append(1))
    trimming.start()
    while not trims:
        await asyncio.sleep(0.001)
    trimming.stop()
    assert trims == [1]


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
    trim()
    after = _resident()
    libc.free(last)
    assert before - after > 50 * 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
