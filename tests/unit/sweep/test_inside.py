"""Items one by one, some at a time: order, errors, full servers, and who leaves."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from pythia_bento.errors import (
    CaptureOverflow,
    CheckpointError,
    InvalidRequest,
    NonFiniteLogits,
    Overloaded,
    PayloadTooLarge,
    PythiaError,
)
from pythia_bento.protocol.activations import Run
from pythia_bento.protocol.parsing import parse
from pythia_bento.sweep.events import Checkpoint, Row
from pythia_bento.sweep.inside import InsideTarget
from pythia_bento.sweep.inside_task import ActivationsTask, numbers_of
from pythia_bento.sweep.part import MAX_TOLD_LARGE
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import Item
from tests.unit.protocol.test_activations import answer
from tests.unit.sweep.fakes import FakeSource, spec

TASK = parse(ActivationsTask, {"type": "activations", "logits": {"tokens": [1]}})
RUN = answer()[0]


class Target(InsideTarget):
    """Answers with ``RUN``, or what a test says of an item's id."""

    def __init__(self, most: int | None = None, **answers: list[PythiaError]) -> None:
        super().__init__(TASK, 7, most)
        self.answers = answers
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = self.left = 0

    async def ask(self, item: Item) -> Run:
        self.asked += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        if errors := self.answers.get(item.id or ""):
            raise errors.pop(0)
        return RUN


def items(*ids: str, **fields: Any) -> list[tuple[int, Item]]:
    made = [parse(Item, {"id": id, "prompt": "a", **fields}) for id in ids]
    return list(enumerate(made, 5))


async def told(target: Target, *ids: str, **fields: Any) -> dict[str | None, Row]:
    return {row.id: row async for row in target.rows(items(*ids, **fields))}


async def test_a_row_for_each_and_errors_of_items_are_rows() -> None:
    errors = [
        *(InvalidRequest("a"), PayloadTooLarge("b"), CaptureOverflow("c"), NonFiniteLogits("d")),
    ]
    target = Target(**{f"bad{n}": [error] for n, error in enumerate(errors)})
    found = await told(target, "good", "bad0", "bad1", "bad2", "bad3")
    assert (found["good"].run, found["good"].error) == (RUN, None)
    assert [found[f"bad{n}"].error for n in range(4)] == errors
    assert sorted(row.item for row in found.values()) == [5, 6, 7, 8, 9]
    assert {row.checkpoint for row in found.values()} == {7}
    assert target.seconds().compute >= 0 == target.seconds().load
    with pytest.raises(CheckpointError):
        await told(Target(x=[CheckpointError("damaged")]), "x", "y")


async def test_a_full_server_is_asked_again() -> None:
    target = Target(x=[Overloaded("full", retry_after=0.0), Overloaded("full", retry_after=0.0)])
    assert (await told(target, "x"))["x"].run is RUN
    assert target.asked == 3


async def test_what_a_row_may_have() -> None:
    count = numbers_of(RUN)
    assert (await told(Target(count), "x"))["x"].run is RUN
    error = (await told(Target(count - 1), "x"))["x"].error
    assert isinstance(error, PayloadTooLarge)
    assert f"more than the {count - 1} numbers of a row" in error.message
    error = (await told(Target(), "x", continuation="b"))["x"].error
    assert error is not None and error.message == "continuation is for score and extract"


async def test_who_leaves_ends_what_is_under_way() -> None:
    target = Target()
    async with aclosing(target.rows(items("a"))) as rows:
        await anext(rows)
    target.gate.clear()
    async with aclosing(target.rows(items("a", "b", "c"))) as rows:
        first = asyncio.ensure_future(anext(rows))
        while target.asked < 4:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait((first,))
    assert target.left == 3


async def test_where_the_time_went() -> None:
    target = Target()
    target._is_there = False
    assert target.seconds().load == 0
    await told(target, "x", "y")
    seconds = target.seconds()
    assert seconds.load > 0 and seconds.compute >= 0


async def test_equal_weights_are_computed_each_and_few_rows_wait() -> None:
    source = FakeSource(steps=(0, 1, 2))
    source.same = {1: 0}
    task = {"type": "activations", "logits": {"tokens": [1]}}
    asked = spec(60, models=["bundled@step0", "bundled@step1", "bundled@step9"], task=task)
    async with aclosing(run(asked, source)) as events:
        checkpoints = []
        async for event in events:
            if isinstance(event, Checkpoint):
                checkpoints.append(event)
            if isinstance(event, Row) and event.item == 0:
                for _ in range(100):
                    await asyncio.sleep(0)
                assert len(source.numbers) % 60 <= MAX_TOLD_LARGE + 4
    assert [(one.model, one.computed) for one in checkpoints] == [
        *(("bundled@step0", True), ("bundled@step1", True)),
    ]
    assert checkpoints[1].same_weights == ("bundled@step0",)
    assert source.asked == ["bundled@step0", "bundled@step1"]
