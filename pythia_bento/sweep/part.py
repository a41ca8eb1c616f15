"""One checkpoint of a sweep, and those with the same weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pythia_bento.errors import DeadlineExceeded, PythiaError
from pythia_bento.sweep.events import Checkpoint, Done, Event, Failed, Row
from pythia_bento.sweep.inside_task import ActivationsTask
from pythia_bento.sweep.source import Numbered, Source, Target
from pythia_bento.sweep.spec import SweepSpec

LANES = 2  # blocks under way of one checkpoint: while one is being told the other computes
MAX_TOLD = 256  # rows that nobody has read yet; then no more are asked for
# The same where several engines compute: the rows of one wait for those of another.
MAX_TOLD_BESIDE = 4096
MAX_TOLD_LARGE = 4  # the same of activations, of which a row may have many MB


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a sweep that a server makes for somebody."""

    seconds: float  # for all
    checkpoint_seconds: float  # for one, from its first row on


@dataclass(slots=True)
class Group:
    """Checkpoints with equal weights, or one that cannot be asked."""

    checkpoints: list[Checkpoint] = field(default_factory=list)
    failed: Failed | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked of all checkpoints alike."""

    spec: SweepSpec
    source: Source
    items: range  # places of those that are asked
    limits: Limits | None


class Part:
    """One group: its first checkpoint is asked, the others repeat the rows."""

    def __init__(self, asking: Asking, group: Group, on_sent: Callable[[], None]) -> None:
        """``on_sent`` is called when there is nothing left to ask."""
        self._asking, self._group, self._on_sent = asking, group, on_sent
        most = MAX_TOLD if asking.source.engines == 1 else MAX_TOLD_BESIDE
        if isinstance(asking.spec.task, ActivationsTask):
            most = MAX_TOLD_LARGE
        self._told: asyncio.Queue[Row | Done | Exception] = asyncio.Queue(most)
        self._failure: PythiaError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_ended = False
        self.is_sent = False
        """Whether nothing is left to ask."""
        self.task: asyncio.Task[None] | None = None

    def begin(self, failure: PythiaError | None) -> None:
        """``failure`` is why it is not to be asked."""
        self._failure = failure
        if self._group.failed is not None or failure is not None:
            self.is_sent = True
        else:
            self.task = asyncio.create_task(self._ask())

    def fail(self, error: PythiaError) -> None:
        """End it before its time."""
        if self.task is not None and self._failure is None and not self._has_ended:
            self._failure = error
            self.task.cancel()

    async def events(self) -> AsyncGenerator[Event, None]:
        """Of all checkpoints of the group."""
        if self._group.failed is not None:
            yield self._group.failed
            return
        first, *others = self._group.checkpoints
        kept: list[Row] = []
        end: Done | Exception | None = self._failure
        if end is None:
            yield first
        while end is None:
            if isinstance(told := await self._told.get(), Row):
                yield told
                kept += [told] if others else []
            else:
                end = told
        for event in _ends(end, first, others, kept):
            yield event

    async def _ask(self) -> None:
        first, asking = self._group.checkpoints[0], self._asking
        end: Done | Exception
        try:
            target = await asking.source.open(first.model, first.index, asking.spec)
            items = ((number, asking.spec.items[number]) for number in asking.items)
            blocks = _blocks(items, target.block)
            await _together([self._lane(target, blocks) for _ in range(LANES)])
            end = Done(first.index, target.seconds())
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            end = self._failure
        except Exception as error:  # what is no PythiaError is raised to who reads the events
            end = error
        self._has_ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._sent()
        await self._told.put(end)

    async def _lane(self, target: Target, blocks: Iterator[tuple[Numbered, ...]]) -> None:
        for block in blocks:
            async with aclosing(target.rows(block)) as rows:
                async for row in rows:
                    self._begin_clock()
                    await self._told.put(row)
        self._sent()

    def _begin_clock(self) -> None:
        if self._asking.limits is not None and self._timer is None:
            seconds = self._asking.limits.checkpoint_seconds
            error = DeadlineExceeded(
                f"the checkpoint's rows did not come within {seconds:g} seconds "
                "(PYTHIA_REQUEST_TIMEOUT)"
            )
            self._timer = asyncio.get_running_loop().call_later(seconds, self.fail, error)

    def _sent(self) -> None:
        self.is_sent = True
        self._on_sent()


def _blocks(items: Iterator[Numbered], size: int) -> Iterator[tuple[Numbered, ...]]:
    while block := tuple(islice(items, size)):
        yield block


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All to their end; the first that fails ends the others."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ends(
    end: Done | Exception, first: Checkpoint, others: Sequence[Checkpoint], rows: Sequence[Row]
) -> Iterator[Event]:
    """How a checkpoint ended, and the same of those with its weights."""
    if isinstance(end, PythiaError):
        yield from (Failed(one.index, one.model, end) for one in (first, *others))
        return
    if isinstance(end, Exception):
        raise end
    yield end
    for other in others:
        yield other
        yield from (replace(row, checkpoint=other.index) for row in rows)
        yield Done(other.index)
