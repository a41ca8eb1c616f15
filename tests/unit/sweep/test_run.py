"""The order of things, with a source that computes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from pythia_bento.errors import CheckpointError, DeadlineExceeded, InvalidRequest
from pythia_bento.sweep.events import Checkpoint, Done, End, Event, Failed, Row, Seconds, Start
from pythia_bento.sweep.part import LANES, MAX_TOLD, Limits
from pythia_bento.sweep.run import run
from tests.unit.sweep.fakes import FakeSource, spec
from tests.unit.turning import until

NO_LIMITS = Limits(1e6, 1e6)


async def told(source: FakeSource, items: int = 3, **rest: Any) -> list[Event]:
    fields = {name: rest.pop(name) for name in ("steps", "models") if name in rest}
    return [event async for event in run(spec(items, **fields), source, **rest)]


def rows(events: list[Event], checkpoint: int) -> list[tuple[int, float | None]]:
    found = [e for e in events if isinstance(e, Row) and e.checkpoint == checkpoint]
    return sorted((row.item, row.logprob) for row in found)


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events if not isinstance(event, Row)]


async def test_each_checkpoint_has_its_rows_between_its_name_and_its_end() -> None:
    events = await told(FakeSource(ahead=4))
    assert kinds(events) == ["Start", *["Checkpoint", "Done"] * 4, "End"]
    assert events[0] == Start(spec().key, 4, 3)
    assert events[-1] == End(4, 0)
    of = [event.checkpoint for event in events if isinstance(event, (Row, Done))]
    assert of == sorted(of)
    for index in range(4):
        assert rows(events, index) == [(0, -1.0), (1, -2.0), (2, -3.0)]


async def test_a_checkpoint_is_told_with_all_that_is_known() -> None:
    events = await told(FakeSource(), steps=[2])
    assert events[1] == Checkpoint(
        index=0,
        model="bundled@step2",
        step=2,
        tokens_seen=2 * 2_097_152,
        commit="c" * 40,
        weights="w2",
        system_fingerprint="print 2",
    )
    assert events[-2] == Done(0, Seconds(1.0, 2.0, 3.0))


async def test_what_is_not_there_and_what_fails_are_no_others_end() -> None:
    source = FakeSource()
    source.faults["bundled@step1"] = CheckpointError("bundled@step1 is damaged")
    events = await told(source, steps=[0, 1, 2, 7])
    failed = [(e.checkpoint, e.model) for e in events if isinstance(e, Failed)]
    assert failed == [(1, "bundled@step1"), (3, "bundled@step7")]
    assert events[-1] == End(2, 2)
    assert len(rows(events, 0)) == len(rows(events, 2)) == 3
    assert source.under_way == 0


async def test_a_fault_of_our_own_is_raised() -> None:
    source = FakeSource()
    source.faults["bundled@step1"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await told(source)
    assert source.under_way == 0


async def test_equal_weights_are_computed_once() -> None:
    source = FakeSource()
    source.same = {2: 0, 3: 0}
    events = await told(source)
    assert source.asked == ["bundled@step0", "bundled@step1"]
    found = [event for event in events if isinstance(event, Checkpoint)]
    assert [(one.index, one.step, one.computed) for one in found] == [
        (0, 0, True),
        (2, 2, False),
        (3, 3, False),
        (1, 1, True),
    ]
    assert found[1].same_weights == ("bundled@step0", "bundled@step3")
    assert rows(events, 0) == rows(events, 2) == rows(events, 3)
    assert events[-1] == End(4, 0)


async def test_equal_weights_fail_together() -> None:
    source = FakeSource(steps=(0, 1))
    source.same = {1: 0}
    source.faults["bundled@step0"] = CheckpointError("damaged")
    events = await told(source)
    assert [e.model for e in events if isinstance(e, Failed)] == ["bundled@step0", "bundled@step1"]


async def test_what_is_known_is_skipped_and_its_twin_computed() -> None:
    source = FakeSource(steps=(0, 1, 2))
    source.same = {1: 0}
    skipped = {"bundled@step0", "bundled@step2"}
    events = await told(source, skip=lambda one: one.model in skipped)
    assert source.asked == ["bundled@step1"]
    [found] = [event for event in events if isinstance(event, Checkpoint)]
    assert (found.index, found.computed, found.same_weights) == (1, True, ("bundled@step0",))


async def test_a_part_of_the_items_keeps_their_numbers() -> None:
    events = await told(FakeSource(steps=(0,)), items=10, steps=[0])
    whole = rows(events, 0)
    source = FakeSource(steps=(0,))
    events = [e async for e in run(spec(10), source, items=range(4, 7))]
    assert rows(events, 0) == whole[4:7]
    assert events[0] == Start(spec(10).key, 1, 3)


@asynccontextmanager
async def held_at_the_first(source: FakeSource) -> AsyncIterator[None]:
    """A sweep whose first checkpoint has answered and not ended; it comes to its end afterwards."""
    source.gates["bundled@step0"] = gate = asyncio.Event()
    async with aclosing(run(spec(10), source)) as events:
        while not isinstance(await anext(events), Row):
            pass
        yield
        gate.set()
        assert [event async for event in events][-1] == End(4, 0)


async def test_the_next_one_loads_while_one_computes() -> None:
    source = FakeSource(ahead=2)
    async with held_at_the_first(source):
        await until(lambda: source.prepared)
        assert (source.asked, source.prepared) == (["bundled@step0"], ["bundled@step1"])
    assert source.asked == [f"bundled@step{step}" for step in range(4)]


async def test_with_more_places_the_disk_has_a_next_one_when_that_is_there() -> None:
    source = FakeSource(ahead=5)
    async with held_at_the_first(source):
        await until(lambda: len(source.prepared) == 2)
        assert source.asked == ["bundled@step0"]
    assert source.prepared == [f"bundled@step{step}" for step in range(1, 4)]


async def test_where_there_is_one_place_nothing_is_loaded_ahead() -> None:
    source = FakeSource(ahead=1)
    await told(source, items=10)
    assert source.prepared == []
    assert source.asked == [f"bundled@step{step}" for step in range(4)]


async def test_each_engine_has_a_checkpoint_that_it_computes() -> None:
    source = FakeSource(ahead=4)
    source.engines = 2
    async with held_at_the_first(source):
        await until(lambda: len(source.asked) == 4)  # the second ends, and others follow
    assert source.asked == [f"bundled@step{step}" for step in range(4)]


async def test_few_items_keep_several_checkpoints_busy() -> None:
    source = FakeSource(ahead=3)
    source.gates["bundled@step0"] = gate = asyncio.Event()
    async with aclosing(run(spec(2), source)) as events:
        await anext(events)
        await anext(events)
        await until(lambda: len(source.asked) == 3)
        await asyncio.sleep(0.01)  # for one too many to come
        assert source.asked == [f"bundled@step{step}" for step in range(3)]
        gate.set()
        assert [event async for event in events][-1] == End(4, 0)


async def test_a_reader_that_takes_nothing_is_not_run_ahead_of() -> None:
    source = FakeSource(steps=(0,))
    async with aclosing(run(spec(10 * MAX_TOLD), source)) as events:
        while not isinstance(await anext(events), Row):
            pass
        await asyncio.sleep(0.05)
        assert len(source.numbers) <= MAX_TOLD + 1 + LANES


async def test_a_reader_that_leaves_ends_it() -> None:
    source = FakeSource(ahead=4)
    source.gates = {f"bundled@step{step}": asyncio.Event() for step in range(4)}
    async with aclosing(run(spec(2), source)) as events:
        while not isinstance(await anext(events), Row):
            pass
        assert source.under_way > 0
    assert source.under_way == 0


class Timers:
    """Those of some seconds run out when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.due: list[Callable[[], object]] = []
        loop = asyncio.get_running_loop()

        def noted(delay: float, call: Any, *args: Any, _real: Any = loop.call_later) -> Any:
            if delay == seconds:
                self.due.append(partial(call, *args))
                delay = 3600
            return _real(delay, call, *args)

        monkeypatch.setattr(loop, "call_later", noted)


async def test_time_for_all_ends_those_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers(monkeypatch, 0.05)
    source = FakeSource(steps=(0, 1, 2))
    source.gates["bundled@step1"] = asyncio.Event()
    telling = asyncio.create_task(told(source, limits=Limits(0.05, 1e6)))
    await until(lambda: len(source.asked) == 2)
    [run_out] = timers.due
    run_out()
    events = await telling
    failed = [e for e in events if isinstance(e, Failed)]
    assert [one.checkpoint for one in failed] == [1, 2]
    assert all(isinstance(one.error, DeadlineExceeded) for one in failed)
    assert "within 0.05 seconds (PYTHIA_SWEEP_TIMEOUT)" in failed[0].error.message
    assert events[-1] == End(1, 2)
    assert (source.under_way, source.asked) == (0, ["bundled@step0", "bundled@step1"])


async def test_time_for_one_is_counted_from_its_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers(monkeypatch, 0.05)
    source = FakeSource(steps=(0, 1))
    source.gates["bundled@step0"] = asyncio.Event()
    telling = asyncio.create_task(told(source, limits=Limits(1e6, 0.05)))
    await until(lambda: timers.due)
    assert source.numbers == [0]
    timers.due[0]()
    events = await telling
    assert len(timers.due) == 2  # the other one has its own
    [failed] = [e for e in events if isinstance(e, Failed)]
    assert "within 0.05 seconds (PYTHIA_REQUEST_TIMEOUT)" in failed.error.message
    assert (failed.checkpoint, events[-1]) == (0, End(1, 1))


async def test_what_is_too_much_is_refused_before_anything_is_told() -> None:
    events = run(spec(2048, models=["bundled@step0"] * 489), FakeSource(), NO_LIMITS)
    assert isinstance(await anext(events), Start), "named twice is asked for once"
    await events.aclose()
    many = [f"bundled@step{step}" for step in range(489)]
    with pytest.raises(InvalidRequest, match="rows, but the limit of one sweep is 1,000,000"):
        await anext(run(spec(2048, models=many), FakeSource(range(489)), NO_LIMITS))
