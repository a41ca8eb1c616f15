"""The sweep itself: checkpoint by checkpoint, the next one loading while one computes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import islice

from pythia_bento.catalog import TOKENS_PER_STEP, ModelId
from pythia_bento.errors import DeadlineExceeded, PythiaError
from pythia_bento.sweep.events import Checkpoint, Done, End, Event, Failed, Start
from pythia_bento.sweep.inside_task import ActivationsTask
from pythia_bento.sweep.part import Asking, Group, Limits, Part
from pythia_bento.sweep.source import Facts, Source
from pythia_bento.sweep.spec import SweepSpec, check_rows

MAX_OPEN = 8  # checkpoints asked at a time, where few items are asked of each
PREPARED = 2  # that come to the device meanwhile: one, and another when that is there


async def run(
    spec: SweepSpec,
    source: Source,
    limits: Limits | None = None,
    skip: Callable[[Checkpoint], bool] | None = None,
    items: range | None = None,
) -> AsyncGenerator[Event, None]:
    """The events of a sweep; closing the generator ends it.

    With ``limits`` it may have so many rows as a server tells. ``skip`` says whose rows are known:
    nothing is told of these. ``items`` are the places of those that are asked, all by default.
    Raises InvalidRequest and ModelNotFound before the first event.
    """
    items = range(len(spec.items)) if items is None else items
    ids = await names(spec, source)
    if limits is not None:
        check_rows(len(items), len(ids))
    groups = groups_of(ids, await source.look(ids))
    if isinstance(spec.task, ActivationsTask):  # nobody keeps rows to repeat them
        groups = list(apart(groups))
    yield Start(spec.key, len(ids), len(items))
    sweep = _Sweep(Asking(spec, source, items, limits), left_of(groups, skip))
    try:
        async for event in sweep.events():
            yield event
    finally:
        await sweep.close()


async def names(spec: SweepSpec, source: Source) -> list[str]:
    """Ids of the checkpoints that are asked for; raises InvalidRequest and ModelNotFound."""
    if spec.models is not None:
        return list(dict.fromkeys(spec.models))
    name = spec.bare_name(source.default)
    return spec.step_ids(name, await source.steps(name))


def groups_of(ids: Sequence[str], found: Sequence[Facts | PythiaError]) -> list[Group]:
    """In the order of the first of each."""
    by_weights: dict[str, list[str]] = {}
    for id, facts in zip(ids, found, strict=True):
        if isinstance(facts, Facts):
            by_weights.setdefault(facts.weights, []).append(id)
    groups: dict[str, Group] = {}
    for index, (id, facts) in enumerate(zip(ids, found, strict=True)):
        if isinstance(facts, PythiaError):
            groups[id] = Group(failed=Failed(index, id, facts))
            continue
        group = groups.setdefault(f"={facts.weights}", Group())
        others = {*facts.same_weights, *by_weights[facts.weights]} - {id}
        group.checkpoints.append(_checkpoint(index, id, facts, tuple(sorted(others))))
    return list(groups.values())


def apart(groups: Iterable[Group]) -> Iterator[Group]:
    """Each checkpoint alone, also of those with equal weights."""
    for group in groups:
        yield from (Group([one]) for one in group.checkpoints)
        if group.failed is not None:
            yield group


def _checkpoint(index: int, id: str, facts: Facts, same_weights: tuple[str, ...]) -> Checkpoint:
    step = ModelId(*id.partition("@")[::2]).step  # equal weights may be those of several steps
    step = facts.step if step is None else step
    return Checkpoint(
        index=index,
        model=id,
        step=step,
        tokens_seen=None if step is None else step * TOKENS_PER_STEP,
        commit=facts.commit,
        weights=facts.weights,
        system_fingerprint=facts.fingerprint,
        same_weights=same_weights,
    )


def left_of(groups: list[Group], skip: Callable[[Checkpoint], bool] | None) -> Iterator[Group]:
    """What there is to tell, the first of each group computed for all of it."""
    for group in groups:
        kept = [one for one in group.checkpoints if skip is None or not skip(one)]
        if kept or group.failed:
            told = [replace(one, computed=place == 0) for place, one in enumerate(kept)]
            yield Group(told, group.failed)


class _Sweep:
    """Groups on their way: those that wait, and those that are asked, in order."""

    def __init__(self, asking: Asking, groups: Iterable[Group]) -> None:
        self._asking = asking
        self._waiting = deque(groups)
        self._open: deque[Part] = deque()
        self._most = min(asking.source.ahead, MAX_OPEN)
        self._prepared: set[str] = set()
        self._preparing: set[asyncio.Task[None]] = set()
        self._expired: PythiaError | None = None
        self._timer: asyncio.TimerHandle | None = None
        if (limits := asking.limits) is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(limits.seconds, self._expire, limits.seconds)

    async def events(self) -> AsyncGenerator[Event, None]:
        """All but the first."""
        counts = {Done: 0, Failed: 0}
        self._advance()
        while self._open:
            async with aclosing(self._open[0].events()) as events:
                async for event in events:
                    if isinstance(event, (Done, Failed)):
                        counts[type(event)] += 1
                    yield event
            self._open.popleft()
            self._advance()
        yield End(counts[Done], counts[Failed])

    async def close(self) -> None:
        """End what is under way."""
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        tasks = [*self._preparing]
        tasks += [part.task for part in self._open if part.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _advance(self) -> None:
        """Ask the next one as soon as those before have all their items under way.

        Where several engines compute, each may have one that has not.
        """
        engines = self._asking.source.engines
        while self._waiting and len(self._open) < self._most:
            if sum(not part.is_sent for part in self._open) >= engines:
                self._prepare(min(PREPARED, self._most - len(self._open)))
                return
            part = Part(self._asking, self._waiting.popleft(), self._advance)
            self._open.append(part)
            part.begin(self._expired)

    def _prepare(self, count: int) -> None:
        """Let those that come next load while others compute."""
        groups = [one for one in islice(self._waiting, count) if one.failed is None]
        for id in (group.checkpoints[0].model for group in groups):
            if id in self._prepared:
                continue
            self._prepared.add(id)
            task = asyncio.create_task(self._asking.source.prepare(id))
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)

    def _expire(self, seconds: float) -> None:
        self._expired = DeadlineExceeded(
            f"the sweep did not finish within {seconds:g} seconds (PYTHIA_SWEEP_TIMEOUT)"
        )
        for part in self._open:
            part.fail(self._expired)
