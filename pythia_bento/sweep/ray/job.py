"""The events of a sweep that many machines compute."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Full, Queue
from typing import Any, NamedTuple

from pythia_bento.errors import CheckpointError, PythiaError
from pythia_bento.sweep.events import Checkpoint, Done, End, Event, Failed, Start
from pythia_bento.sweep.part import Group
from pythia_bento.sweep.ray.actor import Scorer
from pythia_bento.sweep.ray.cluster import Nodes, Share, connect
from pythia_bento.sweep.ray.spool import Spool
from pythia_bento.sweep.ray.units import BLOCK, Unit, blocks_of, by_place, places_of, units_of
from pythia_bento.sweep.ray.wire import decode
from pythia_bento.sweep.run import groups_of, left_of, names
from pythia_bento.sweep.spec import SweepSpec

CPUS = 1.0  # of an actor where there are no GPUs


class Answer(NamedTuple):
    """What a unit led to."""

    group: int
    block: int
    rows: bytes
    error: str | None


async def run_on_ray(
    spec: SweepSpec,
    address: str,
    settings: Mapping[str, Any],
    skip: Callable[[Checkpoint], bool] | None = None,
    *,
    cpus: float = CPUS,
    block: int = BLOCK,
    folder: Path | None = None,
) -> AsyncGenerator[Event, None]:
    """As ``run``, but checkpoints come in the order in which they are complete.

    ``settings`` are those of the engines, beside what each machine's environment says, ``cpus`` the
    processors of one where there are no GPUs. Rows wait for those in front of them in ``folder``.
    Raises PythiaError where the cluster cannot be reached or gives up.
    """
    ray = connect(address)
    nodes = Nodes(ray, settings, cpus)
    try:
        ids = await names(spec, nodes)
        groups = groups_of(ids, await nodes.look(ids))
    finally:
        nodes.close()
    yield Start(spec.key, len(ids), len(spec.items))
    left = list(left_of(groups, skip))
    counts = {Done: 0, Failed: 0}
    async for event in _all(ray, spec, left, nodes, settings, block, folder):
        if isinstance(event, (Done, Failed)):
            counts[type(event)] += 1
        yield event
    yield End(counts[Done], counts[Failed])


async def _all(
    ray: Any,
    spec: SweepSpec,
    left: Sequence[Group],
    nodes: Nodes,
    settings: Mapping[str, Any],
    block: int,
    folder: Path | None,
) -> AsyncGenerator[Event, None]:
    for group in left:
        if group.failed is not None:
            yield group.failed
    groups = {place: group for place, group in enumerate(left) if group.failed is None}
    if not groups:
        return
    work = Work(ray, spec, groups, nodes, settings, block)
    with tempfile.TemporaryDirectory(prefix=".ray-", dir=folder) as place:
        spool = Spool(Path(place), len(work.blocks))
        try:
            async for event in _told(work, groups, spool):
                yield event
        finally:
            work.stop()


async def _told(
    work: Work, groups: Mapping[int, Group], spool: Spool
) -> AsyncGenerator[Event, None]:
    """Each group as soon as it is complete."""
    open_groups = set(groups)
    work.begin()
    while open_groups:
        answer = await asyncio.to_thread(work.answers.get)
        if isinstance(answer, BaseException):
            raise answer
        if answer.group not in open_groups:
            continue
        if answer.error is not None:
            events = _failed(groups[answer.group], answer.error)
        elif spool.put(answer.group, answer.block, answer.rows):
            events = _rows(groups[answer.group], spool, answer.group)
        else:
            continue
        for event in events:
            yield event
        spool.drop(answer.group)
        open_groups.remove(answer.group)


def _failed(group: Group, message: str) -> Iterator[Event]:
    error = CheckpointError(message, param="model")
    return (Failed(one.index, one.model, error) for one in group.checkpoints)


def _rows(group: Group, spool: Spool, number: int) -> Iterator[Event]:
    for checkpoint in group.checkpoints:
        yield checkpoint
        for rows in spool.read(number):
            yield from decode(rows, checkpoint.index)
        yield Done(checkpoint.index)


class Work:
    """Jobs of Ray Data, one for each set of machines that may compute the same."""

    def __init__(
        self,
        ray: Any,
        spec: SweepSpec,
        groups: Mapping[int, Group],
        nodes: Nodes,
        settings: Mapping[str, Any],
        block: int,
    ) -> None:
        self._ray, self._nodes, self._settings, self._size = ray, nodes, settings, block
        self.answers: Queue[Answer | BaseException] = Queue(1)  # what is not read is not computed
        self.blocks = [
            ray.put(spec.items[one.start : one.stop]) for one in blocks_of(len(spec.items), block)
        ]
        self._spec = spec.model_copy(update={"items": (), "model": None, "steps": "all"})
        units = units_of(groups, len(self.blocks))
        weights = {number: group.checkpoints[0].weights for number, group in groups.items()}
        places = places_of(weights, nodes.holders, frozenset(nodes.shares))
        self._jobs = by_place(units, places)
        self._has_stopped = threading.Event()

    def begin(self) -> None:
        """Answers come from now on, in any order; an exception is the last of a job's."""
        context = self._ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        for node, units in self._jobs.items():
            threading.Thread(target=self._run, args=(node, units), daemon=True).start()

    def stop(self) -> None:
        """Nobody reads any more."""
        self._has_stopped.set()

    def _run(self, node: str | None, units: Sequence[Unit]) -> None:
        try:
            for answer in self._answers(node, units):
                if not self._put(answer):
                    return
        except Exception as error:
            reason = " ".join(str(error).split())[-500:]
            self._put(PythiaError(f"the cluster gave up: {reason}"))

    def _put(self, answer: Answer | BaseException) -> bool:
        while not self._has_stopped.is_set():
            with suppress(Full):
                self.answers.put(answer, timeout=0.5)
                return True
        return False

    def _answers(self, node: str | None, units: Sequence[Unit]) -> Iterator[Answer]:
        import pyarrow

        tables = [pyarrow.table({k: [v] for k, v in unit._asdict().items()}) for unit in units]
        shares = self._nodes.shares
        chosen = list(shares.values()) if node is None else [shares[node]]
        actors = min(sum(share.count for share in chosen), len(units))
        asked = self._ray.data.from_arrow(tables).map_batches(
            Scorer,
            batch_size=1,
            batch_format="pyarrow",
            compute=self._ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
            fn_constructor_args=(self._settings_of(units), self._spec, self.blocks, self._size),
            **self._options(node, chosen[0]),
        )
        for batch in asked.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
            yield from (Answer(**row) for row in batch.to_pylist())

    def _settings_of(self, units: Sequence[Unit]) -> dict[str, Any]:
        names = {f"{unit.model.partition('@')[0]}@*" for unit in units}
        return {**self._settings, "model": units[0].model, "models": ",".join(sorted(names))}

    def _options(self, node: str | None, share: Share) -> dict[str, Any]:
        """Where its actors run; on another machine when that one is lost."""
        if node is None:
            return share.options
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(node, soft=True)
        return {**share.options, "scheduling_strategy": strategy}
