from __future__ import annotations

import asyncio
import logging
import time

import pytest

from pythia_bento.telemetry import loop_watch
from pythia_bento.telemetry.loop_watch import BEAT_SECONDS, WARN_SECONDS, LoopWatch


class Clock:
    """A clock that only tests move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def beats(watch: LoopWatch, count: int) -> None:
    """Wait until ``count`` more beats have been."""
    for _ in range(count):
        before = watch._beat
        while watch._beat is before:
            await asyncio.sleep(0.001)


async def test_a_late_beat_is_a_pause() -> None:
    clock, descheduled = Clock(), Clock()
    watch = LoopWatch(clock, descheduled)
    watch.start()
    clock.now += BEAT_SECONDS
    await beats(watch, 1)
    assert watch.longest == 0
    clock.now += BEAT_SECONDS + 0.4
    await beats(watch, 1)
    assert watch.longest == pytest.approx(0.4)
    clock.now += BEAT_SECONDS + 0.1
    await beats(watch, 1)
    assert watch.longest == pytest.approx(0.4)
    watch.stop()


async def test_time_that_others_had_is_no_pause() -> None:
    clock, descheduled = Clock(), Clock()
    watch = LoopWatch(clock, descheduled)
    watch.start()
    clock.now, descheduled.now = BEAT_SECONDS + 0.5, 0.3
    await beats(watch, 1)
    assert watch.longest == pytest.approx(0.2)
    watch.stop()


async def test_a_pause_is_logged_once_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch()
    watch.start()
    with caplog.at_level(logging.WARNING, logger=loop_watch.__name__):
        stand_still(WARN_SECONDS)
        await asyncio.sleep(0)
    watch.stop()
    [record] = caplog.records
    assert "has not turned for 100 ms" in record.getMessage()
    assert "stand_still" in record.getMessage()


def stand_still(seconds: float) -> None:
    """Longer than ``seconds`` by several beats, so that the other thread sees it."""
    end = time.monotonic() + seconds + 20 * BEAT_SECONDS
    while time.monotonic() < end:
        pass


async def test_nothing_is_left_after_stop() -> None:
    watch = LoopWatch()
    watch.start()
    watch.stop()
    watch.stop()
    before = watch._beat
    await asyncio.sleep(2 * BEAT_SECONDS)
    assert watch._beat is before
