"""The inside of one checkpoint, item by item, each as a request of its own."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from pythia_bento.errors import (
    CaptureOverflow,
    InvalidRequest,
    NonFiniteLogits,
    Overloaded,
    PayloadTooLarge,
)
from pythia_bento.protocol.activations import Run
from pythia_bento.sweep.events import Row, Seconds
from pythia_bento.sweep.inside_task import ActivationsTask, numbers_of
from pythia_bento.sweep.source import Numbered
from pythia_bento.sweep.spec import Item

AT_A_TIME = 16  # items: what is computed together, and held together until it is told
RETRY_SECONDS = 1.0  # at most, to the next try where the server is full
OF_AN_ITEM = (InvalidRequest, PayloadTooLarge, CaptureOverflow, NonFiniteLogits)
"""Errors that come of item, task and weights alone, and so would come again."""


class InsideTarget(ABC):
    """See ``Target``."""

    block = AT_A_TIME

    def __init__(
        self, task: ActivationsTask, index: int, most: int | None, *, is_there: bool = True
    ) -> None:
        """``most`` is how many numbers a row may have."""
        self.task, self.most = task, most
        self._index, self._is_there = index, is_there
        self._asked = self._last = time.monotonic()
        self._first: float | None = None

    @abstractmethod
    async def ask(self, item: Item) -> Run:
        """What is inside of one item; raises PythiaError."""

    async def rows(self, items: Sequence[Numbered]) -> AsyncGenerator[Row, None]:
        """See ``Target``."""
        tasks = [asyncio.create_task(self._row(*one)) for one in items]
        try:
            for coming in asyncio.as_completed(tasks):
                row = await coming
                self._last = time.monotonic()
                self._first = self._first or self._last
                yield row
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def seconds(self) -> Seconds:
        """See ``Target``. All before the first row is load, where the checkpoint was not there."""
        if self._is_there or self._first is None:
            return Seconds(compute=self._last - self._asked)
        return Seconds(load=self._first - self._asked, compute=self._last - self._first)

    async def _row(self, number: int, item: Item) -> Row:
        row = Row(checkpoint=self._index, item=number, id=item.id)
        try:
            return replace(row, run=await self._run(item))
        except OF_AN_ITEM as error:
            return replace(row, error=error)

    async def _run(self, item: Item) -> Run:
        """Of a full server it is asked again and again: a sweep is in no hurry."""
        if item.continuation is not None:
            raise InvalidRequest("continuation is for score and extract", param="continuation")
        while True:
            try:
                run = await self.ask(item)
            except Overloaded as error:
                await asyncio.sleep(min(error.retry_after, RETRY_SECONDS))
                continue
            self._check(run)
            return run

    def _check(self, run: Run) -> None:
        if self.most is not None and numbers_of(run) > self.most:
            raise too_many(self.most)


def too_many(most: int) -> PayloadTooLarge:
    """Of a row that a server would tell."""
    return PayloadTooLarge(
        f"the item's activations are more than the {most:,} numbers of a row; reductions and fewer "
        "positions take less, and /v1/activations and 'pythia-bento sweep' have no such limit",
        param="task",
    )
