"""The events of a sweep that many machines compute."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pythia_bento.errors import CheckpointError
from pythia_bento.sweep.events import Checkpoint, Done, End, Event, Failed, Start
from pythia_bento.sweep.part import Group
from pythia_bento.sweep.ray.cluster import Machines
from pythia_bento.sweep.ray.spool import Spool
from pythia_bento.sweep.ray.units import blocks_of
from pythia_bento.sweep.ray.wire import decode
from pythia_bento.sweep.ray.work import Answer, Work
from pythia_bento.sweep.run import groups_of, left_of
from pythia_bento.sweep.spec import SweepSpec


async def run_on_ray(
    spec: SweepSpec,
    machines: Machines,
    skip: Callable[[Checkpoint], bool] | None = None,
    items: range | None = None,
    *,
    block: int | None = None,
    folder: Path | None = None,
) -> AsyncGenerator[Event, None]:
    """As ``run`` for the ids ``spec.models``, in the order in which checkpoints are complete.

    ``block`` items, by default ``units.BLOCK``, are computed, and lost, together; rows wait for
    those in front of them in ``folder``, by default that of temporary files. Raises InvalidRequest
    for more than Ray is to be given, and PythiaError where the cluster gives up.
    """
    items = range(len(spec.items)) if items is None else items
    ids = list(dict.fromkeys(spec.models or ()))
    left = list(left_of(groups_of(ids, [machines.look(id) for id in ids]), skip))
    work = Work(spec, machines, left, blocks_of(items, block))
    yield Start(spec.key, len(ids), len(items))
    counts = {Done: 0, Failed: 0}
    with _spool(folder, len(work.blocks)) as spool:
        events = _events(left, work, spool)
        try:
            async for event in events:
                if isinstance(event, (Done, Failed)):
                    counts[type(event)] += 1
                yield event
        finally:
            await events.aclose()
            work.stop()
    yield End(counts[Done], counts[Failed])


@contextmanager
def _spool(folder: Path | None, blocks: int) -> Iterator[Spool]:
    with tempfile.TemporaryDirectory(prefix=".ray-", dir=folder) as place:
        yield Spool(Path(place), blocks)


async def _events(left: list[Group], work: Work, spool: Spool) -> AsyncGenerator[Event, None]:
    """Each group as soon as it is complete."""
    for group in left:
        if group.failed is not None:
            yield group.failed
    telling = Telling(work.groups, spool)
    work.begin()
    while telling.groups:
        answer = await asyncio.to_thread(work.next)
        if not isinstance(answer, Answer):
            raise answer or asyncio.CancelledError
        for event in telling.of(answer):
            yield event


class Telling:
    """Which groups are not complete, and what is known of them."""

    def __init__(self, groups: Mapping[int, Group], spool: Spool) -> None:
        self.groups, self._spool = dict(groups), spool
        self._fingerprints: dict[int, str] = {}

    def of(self, answer: Answer) -> Iterator[Event]:
        """All of a group, with its last answer; a second answer of one unit changes nothing."""
        number = answer.group
        if (group := self.groups.get(number)) is None:
            return
        if error := self._error(answer):
            yield from _failed(group, error)
        elif self._spool.put(number, answer.block, answer.rows):
            yield from self._rows(group, number)
        else:
            return
        self._spool.drop(number)
        del self.groups[number]

    def _error(self, answer: Answer) -> str | None:
        """Blocks of one checkpoint go into one file: they are to have been computed alike."""
        if answer.error is not None:
            return answer.error
        first = self._fingerprints.setdefault(answer.group, answer.fingerprint)
        if answer.fingerprint == first:
            return None
        return f"some machines compute it as {first}, others as {answer.fingerprint}"

    def _rows(self, group: Group, number: int) -> Iterator[Event]:
        for checkpoint in group.checkpoints:
            yield replace(checkpoint, system_fingerprint=self._fingerprints[number])
            for rows in self._spool.read(number):
                yield from decode(rows, checkpoint.index)
            yield Done(checkpoint.index)


def _failed(group: Group, message: str) -> Iterator[Event]:
    error = CheckpointError(message, param="model")
    return (Failed(one.index, one.model, error) for one in group.checkpoints)
