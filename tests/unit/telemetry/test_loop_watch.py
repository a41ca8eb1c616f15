from __future__ import annotations

import asyncio
import logging
import time

import pytest

from pythia_bento.telemetry import loop_watch
from pythia_bento.telemetry.loop_watch import BEAT_SECONDS, WARN_SECONDS, LoopWatch
from tests.e2e.serving import long_work


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


async def test_work_is_what_the_loop_computed_in_a_pause() -> None:
    clock, worked = Clock(), Clock()
    watch = LoopWatch(clock, Clock(), worked)
    watch.start()
    for late, computed, longest in (
        (0.5, 0.2, 0.2),  # the rest went to others
        (0.1, 0.1 + BEAT_SECONDS, 0.2),  # some of it before the beat was due
        (0.3, 0.3 + BEAT_SECONDS, 0.3),
        (0.0, BEAT_SECONDS, 0.3),
    ):
        clock.now += BEAT_SECONDS + late
        worked.now += computed
        await beats(watch, 1)
        assert watch.longest_work == pytest.approx(longest)
    assert watch.longest == pytest.approx(0.5)
    watch.stop()


async def test_the_end_of_a_pause_is_logged_and_the_tests_of_servers_read_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, worked = Clock(), Clock()
    watch = LoopWatch(clock, Clock(), worked)
    watch.start()
    for late, computed in ((WARN_SECONDS / 2, WARN_SECONDS / 2), (0.3, 0.249), (0.3, 0.251)):
        clock.now += BEAT_SECONDS + late
        worked.now += computed
        await beats(watch, 1)
    watch.stop()
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "turns again" in line] == [
        "the event loop turns again after 300 ms, of which it worked for 249 ms",
        "the event loop turns again after 300 ms, of which it worked for 251 ms",
    ]
    assert long_work("\n".join(lines)) == [251]


async def test_a_pause_is_logged_once_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch()
    watch.start()
    with caplog.at_level(logging.WARNING, logger=loop_watch.__name__):
        stand_still(caplog)
        await asyncio.sleep(0)
    watch.stop()
    [place] = places(caplog)
    assert "has not turned for 100 ms" in place


def places(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of loops that stand still in this test, however busy the machine is."""
    found = [record.getMessage() for record in caplog.records]
    return [message for message in found if "in stand_still" in message]


def stand_still(caplog: pytest.LogCaptureFixture) -> None:
    """Until the other thread has seen it, and some beats more."""
    end = time.monotonic() + 60
    while not places(caplog):
        assert time.monotonic() < end
    end = time.monotonic() + 10 * BEAT_SECONDS
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
