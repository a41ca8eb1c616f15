from __future__ import annotations

import asyncio

import pytest

from pythia_bento.errors import RequestTimeout
from pythia_bento.server.grpc.write_timeout import WriteTimeout

SECONDS = 0.05


async def written(write_timeout: WriteTimeout, times: int = 1, seconds: float = 3600) -> None:
    for _ in range(times):
        with write_timeout:
            await asyncio.sleep(seconds)


async def stream(times: int = 1, seconds: float = 3600) -> None:
    write_timeout = WriteTimeout(SECONDS)
    try:
        await written(write_timeout, times, seconds)
    finally:
        write_timeout.close()


async def test_a_write_that_takes_too_long_is_ended() -> None:
    with pytest.raises(RequestTimeout, match=r"did not read for 0\.05 seconds"):
        await asyncio.create_task(stream())


async def test_many_short_ones_may_take_longer_together() -> None:
    await asyncio.create_task(stream(times=200, seconds=SECONDS / 50))


async def test_a_stream_that_is_not_written_to_has_all_time() -> None:
    async def idle() -> None:
        write_timeout = WriteTimeout(SECONDS)
        await written(write_timeout, 1, 0)
        await asyncio.sleep(5 * SECONDS)
        write_timeout.close()

    await asyncio.create_task(idle())


async def test_who_is_cancelled_by_others_is_cancelled() -> None:
    task = asyncio.create_task(stream())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(2 * SECONDS)  # its timer was closed
