"""Memory for captures: in order, given back, and the same in another process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import numpy as np
import pytest

from pythia_bento.errors import DeadlineExceeded, EngineUnavailable, Overloaded, PayloadTooLarge
from pythia_bento.runtime.arena import MOST_WAITING, PAGE, Arena, Region, SharedMemory
from tests.forkserver import CONTEXT
from tests.unit.turning import until

LONG = 60.0


@pytest.fixture
def arena() -> Iterator[Arena]:
    """Of eight pages."""
    arena = Arena(SharedMemory(8 * PAGE - 5))
    yield arena
    arena.close()


async def begun(arena: Arena, *pages: int) -> list[asyncio.Task[Region]]:
    """Who asks for so many pages, one after the other."""
    tasks = []
    for count in pages:
        tasks.append(asyncio.create_task(arena.reserve(count * PAGE, LONG)))
        await asyncio.sleep(0)
    return tasks


async def test_regions_are_apart_and_come_back(arena: Arena) -> None:
    first, second = await arena.reserve(3 * PAGE - 1, LONG), await arena.reserve(1, LONG)
    assert (first.nbytes, second.nbytes, arena.used) == (3 * PAGE - 1, 1, 4 * PAGE)
    assert second.offset >= first.offset + first.nbytes
    first.memory[:] = b"\1" * first.nbytes
    assert bytes(second.memory) == b"\0"
    first.release()
    first.release()
    await until(lambda: arena.used == PAGE)
    assert resident(arena.memory) == PAGE  # the other one's
    again = await arena.reserve(4 * PAGE, LONG)
    assert not np.frombuffer(again.memory, np.uint8).any()
    second.release()
    again.release()
    await until(lambda: arena.used == 0)
    (await arena.reserve(8 * PAGE, LONG)).release()
    assert (await arena.reserve(0, LONG)).memory.nbytes == 0


async def test_who_came_first_is_served_first(arena: Arena) -> None:
    held = await arena.reserve(6 * PAGE, LONG)
    large, small = await begun(arena, 5, 1)
    await asyncio.sleep(0)
    assert not large.done() and not small.done()  # though the small one would fit
    held.release()
    assert (await large).nbytes == 5 * PAGE and (await small).nbytes == PAGE


async def test_who_leaves_is_out_of_the_way(arena: Arena) -> None:
    held = await arena.reserve(6 * PAGE, LONG)
    large, small = await begun(arena, 5, 1)
    large.cancel()
    region = await small
    with pytest.raises(asyncio.CancelledError):
        await large
    held.release()
    region.release()
    await until(lambda: arena.used == 0)


async def test_who_leaves_as_it_is_served_gives_it_back(arena: Arena) -> None:
    for _ in range(20):
        [task] = await begun(arena, 8)  # granted, and not told yet
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: arena.used == 0)


async def test_what_can_never_be_or_takes_too_long_is_refused(arena: Arena) -> None:
    with pytest.raises(PayloadTooLarge, match=r"capture asks for 36,864 bytes, .* has 32,768"):
        await arena.reserve(9 * PAGE, LONG)
    held = await arena.reserve(8 * PAGE, LONG)
    with pytest.raises(DeadlineExceeded, match=r"within 0\.001 seconds"):
        await arena.reserve(PAGE, 0.001)
    waiting = await begun(arena, *[1] * MOST_WAITING)
    with pytest.raises(Overloaded, match=f"{MOST_WAITING} requests wait"):
        await arena.reserve(1, LONG)
    held.release()
    for region in await asyncio.gather(*waiting[:8]):
        region.release()
    for region in await asyncio.gather(*waiting[8:16]):
        region.release()
    for task in waiting[16:]:
        task.add_done_callback(lambda done: done.result().release())
    await asyncio.gather(*waiting)
    await until(lambda: arena.used == 0)


async def test_a_region_is_free_when_nobody_writes_to_it_any_more(arena: Arena) -> None:
    region = await arena.reserve(8 * PAGE, LONG)
    region.hold()
    region.release()
    [waiting] = await begun(arena, 1)
    region.hold()
    region.drop()
    await asyncio.sleep(0)
    assert not waiting.done() and arena.used == 8 * PAGE
    region.drop()
    await waiting


async def test_who_waits_at_the_end_is_told() -> None:
    arena = Arena(SharedMemory(PAGE))
    held = await arena.reserve(PAGE, LONG)
    [waiting] = await begun(arena, 1)
    arena.close()
    with pytest.raises(EngineUnavailable):
        await waiting
    with pytest.raises(EngineUnavailable):
        await arena.reserve(1, LONG)
    held.memory[0] = 1  # still there for who reads it
    held.release()
    arena.close()


async def test_a_loop_that_is_gone_keeps_nothing(arena: Arena) -> None:
    held = await arena.reserve(8 * PAGE, LONG)

    def ask() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(arena.reserve(PAGE, LONG))
        loop.call_soon(loop.call_soon, loop.stop)
        loop.run_forever()
        assert not task.done()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

    await asyncio.to_thread(ask)
    held.release()
    await until(lambda: arena.used == 0)


def resident(memory: SharedMemory) -> int:
    """Bytes that it takes of the machine's memory."""
    return os.fstat(memory._descriptor).st_blocks * 512


def fill(memory: SharedMemory) -> None:
    memory.array[5:9] = (1, 2, 3, 4)


def test_another_process_has_the_same_memory() -> None:
    memory = SharedMemory(10 * PAGE)
    process = CONTEXT.Process(target=fill, args=(memory,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert memory.array[4:10].tolist() == [0, 1, 2, 3, 4, 0]
    assert 0 < resident(memory) < len(memory)


@pytest.mark.parametrize("is_kept", [False, True])
def test_pages_that_a_gpu_may_write_to_are_not_given_back(is_kept: bool) -> None:
    memory = SharedMemory(2 * PAGE)
    memory.keeps_pages = is_kept
    memory.array[:] = 7
    memory.forget(PAGE, PAGE)
    assert resident(memory) == (2 if is_kept else 1) * PAGE
    assert set(memory.array[PAGE:].tolist()) == {7 if is_kept else 0}


def test_descriptors_come_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        memory = SharedMemory(PAGE)
        memory.array[0] = 1
        memory.close()
        del memory
    assert len(os.listdir("/proc/self/fd")) == before
