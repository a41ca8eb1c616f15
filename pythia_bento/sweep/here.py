"""The checkpoints that a runner serves, asked in this process."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

from pythia_bento.engine.outputs import SequenceOutput, raise_error
from pythia_bento.engine.params import new_request_id
from pythia_bento.errors import InvalidRequest, NonFiniteLogits, Overloaded, PythiaError
from pythia_bento.runtime.model_info import ModelInfo
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.served import Served
from pythia_bento.runtime.served_models import warm_up
from pythia_bento.runtime.streams import AsyncStream
from pythia_bento.sweep.events import Row, Seconds
from pythia_bento.sweep.inside_here import InsideHere
from pythia_bento.sweep.inside_task import ActivationsTask
from pythia_bento.sweep.questions import Question, question
from pythia_bento.sweep.source import Facts, Numbered, Target
from pythia_bento.sweep.spec import PRIORITY, SweepSpec
from pythia_bento.telemetry.calls import working_for

CALLER = "sweep"  # where callers have no names: others' requests do not queue behind its own
OF_AN_ITEM = (InvalidRequest, NonFiniteLogits)
"""Errors that come of item and weights alone, and so would come again. Others are nobody's row."""
RETRY_SECONDS = 1.0  # at most, to the next try where the server is full


class Here:
    """See ``Source``."""

    def __init__(
        self, runner: PythiaRunner, caller: str | None = None, most_numbers: int | None = None
    ) -> None:
        """``caller`` is the name of the API key that asks, where there are any.

        ``most_numbers`` are those of a row of activations.
        """
        self._models, self._caller = runner.models, caller or CALLER
        self._most_numbers = most_numbers
        self.default = runner.info.id

    @property
    def ahead(self) -> int:
        """See ``Source``."""
        return self._models.places

    @property
    def engines(self) -> int:
        """See ``Source``."""
        return self._models.engines

    async def steps(self, name: str) -> set[int]:
        """See ``Source``."""
        return await self._models.steps(name)

    async def look(self, names: Sequence[str]) -> list[Facts | PythiaError]:
        """See ``Source``."""
        found = await self._models.look(names)
        return [one if isinstance(one, PythiaError) else _facts(one) for one in found]

    async def prepare(self, name: str) -> None:
        """See ``Source``."""
        request = replace(warm_up(), caller=self._caller, priority=PRIORITY)
        with suppress(PythiaError), working_for(None):
            await (await self._models.find(name)).complete([request])

    async def open(self, name: str, index: int, spec: SweepSpec) -> Target:
        """See ``Source``."""
        served = await self._models.find(name)
        is_there = self._models.residency(served.info).state == "device"
        if isinstance(spec.task, ActivationsTask):
            return InsideHere(
                served,
                spec.task,
                index,
                priority=spec.priority,
                caller=self._caller,
                most=self._most_numbers,
                is_there=is_there,
            )
        return Asked(served, index, spec, self._caller, is_there=is_there)


class Asked:
    """See ``Target``."""

    def __init__(
        self, served: Served, index: int, spec: SweepSpec, caller: str, *, is_there: bool
    ) -> None:
        self.block = served.limits.max_batch_size
        self._served, self._index, self._spec, self._caller = served, index, spec, caller
        self._is_there = is_there
        self._asked = self._last = time.monotonic()
        self._began: float | None = None

    async def rows(self, items: Sequence[Numbered]) -> AsyncGenerator[Row, None]:
        """See ``Target``."""
        open_questions, refused = await self._questions(items)
        for row in refused:
            yield row
        while open_questions:
            more: list[Question] = []
            stream = await self._submit(open_questions)
            try:
                async for told in self._told(stream, open_questions):
                    if isinstance(told, Row):
                        yield told
                    else:
                        more.append(told)
            finally:
                stream.close()
            open_questions = more

    def seconds(self) -> Seconds:
        """See ``Target``."""
        began = self._last if self._began is None else self._began
        before, compute = max(began - self._asked, 0.0), max(self._last - began, 0.0)
        return Seconds(before, 0.0, compute) if self._is_there else Seconds(0.0, before, compute)

    async def _questions(self, items: Sequence[Numbered]) -> tuple[list[Question], list[Row]]:
        """What to ask, and rows of items that cannot be asked."""
        found, refused = [], []
        for number, item in items:
            row = Row(checkpoint=self._index, item=number, id=item.id)
            try:
                asked = await question(self._spec.task, self._served, item, row)
                self._served.check(asked.request)
                found.append(asked)
            except InvalidRequest as error:
                refused.append(replace(row, error=error))
        return found, refused

    async def _submit(self, questions: list[Question]) -> AsyncStream:
        """A sweep is in no hurry: where the server is full it waits."""
        priority, caller = self._spec.priority, self._caller
        requests = [replace(one.request, priority=priority, caller=caller) for one in questions]
        while True:
            try:
                with working_for(None):  # a call would keep a record of each of a million
                    return await self._served.submit(requests)
            except Overloaded as error:
                await asyncio.sleep(min(error.retry_after, RETRY_SECONDS))

    async def _told(
        self, stream: AsyncStream, questions: list[Question]
    ) -> AsyncIterator[Row | Question]:
        """What each question led to, as soon as it is known."""
        by_id = {one.request.request_id: one for one in questions}
        async for answers in _whole(stream, {id: one.request.n for id, one in by_id.items()}):
            asked = by_id[answers[0].request_id]
            self._note(answers)
            yield await self._read(asked, answers)

    async def _read(self, asked: Question, answers: list[SequenceOutput]) -> Row | Question:
        for answer in answers:
            if isinstance(answer.error, OF_AN_ITEM):
                return replace(asked.row, error=answer.error)
            if isinstance(answer.error, Overloaded):
                await asyncio.sleep(min(answer.error.retry_after, RETRY_SECONDS))
                request = replace(asked.request, request_id=new_request_id())
                return replace(asked, request=request)
            raise_error(answer)
        return await asked.read(answers)

    def _note(self, answers: list[SequenceOutput]) -> None:
        self._last = time.monotonic()
        if self._began is None:
            self._began = answers[0].started or self._last


async def _whole(
    stream: AsyncStream, counts: dict[str, int]
) -> AsyncIterator[list[SequenceOutput]]:
    """The continuations of each request, ``counts`` by id, when the last of these has ended."""
    joined: dict[str, dict[int, SequenceOutput]] = defaultdict(dict)
    async for outputs in stream:
        for output in outputs:
            known = joined[output.request_id]
            if output.index in known:
                known[output.index].extend(output)
            else:
                known[output.index] = output.copy()
            if (
                sum(one.finish_reason is not None for one in known.values())
                == counts[output.request_id]
            ):
                yield [one for _, one in sorted(joined.pop(output.request_id).items())]


def _facts(info: ModelInfo) -> Facts:
    entry, origin = info.checkpoint, info.provenance
    return Facts(
        step=entry.step if entry else None,
        commit=entry.commit if entry else None,
        weights=entry.weights if entry else info.fingerprint,
        fingerprint=info.fingerprint,
        same_weights=origin.same_weights if origin else (),
    )
