"""Jobs of Ray Data, one for each set of machines that may compute the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Any, NamedTuple

from pythia_bento.sweep.part import Group
from pythia_bento.sweep.ray.actor import Scorer
from pythia_bento.sweep.ray.cluster import Machines, Share, gave_up
from pythia_bento.sweep.ray.units import Unit, by_place, places_of, units_of
from pythia_bento.sweep.spec import SweepSpec

LOOK_SECONDS = 0.5  # between two looks whether there still is somebody who reads

RETRIES = 16  # of an actor and of a unit; then the sweep ends, and goes on with the next command


class Answer(NamedTuple):
    """What a unit led to; names are those of columns."""

    group: int
    block: int
    rows: bytes
    fingerprint: str
    error: str | None


class Work:
    """Units on their way to actors, and their answers on the way back."""

    def __init__(
        self, spec: SweepSpec, machines: Machines, left: Sequence[Group], blocks: Sequence[range]
    ) -> None:
        """Raises InvalidRequest for too many units. Only items go through the object store."""
        self._ray, self._machines = machines.ray, machines
        self.groups = {i: group for i, group in enumerate(left) if group.failed is None}
        units = units_of(self.groups, len(blocks))
        self._told: Queue[Answer | Exception] = Queue(1)  # what is not read is not computed
        self.blocks = [
            self._ray.put((block.start, spec.items[block.start : block.stop])) for block in blocks
        ]
        self._spec = spec.model_copy(update={"items": ()})
        self._jobs = by_place(units, self._places())
        self._has_stopped = threading.Event()

    def _places(self) -> dict[int, str | None]:
        ids = {i: group.checkpoints[0].model for i, group in self.groups.items()}
        holders = {i: self._machines.holders(id) for i, id in ids.items()}
        return places_of(holders, frozenset(self._machines.shares))

    def begin(self) -> None:
        """Answers come from now on, in any order; an exception is the last of its job."""
        context = self._ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        for node, units in self._jobs.items():
            threading.Thread(target=self._run, args=(node, units), daemon=True).start()

    def next(self) -> Answer | Exception | None:
        """Wait for one; None after ``stop``."""
        while not self._has_stopped.is_set():
            with suppress(Empty):
                return self._told.get(timeout=LOOK_SECONDS)
        return None

    def stop(self) -> None:
        """Nobody reads any more."""
        self._has_stopped.set()

    def _run(self, node: str | None, units: Sequence[Unit]) -> None:
        try:
            for answer in self._answers(node, units):
                if not self._put(answer):
                    return
        except Exception as error:  # Ray has many; who reads gets one
            self._put(gave_up(error))

    def _put(self, answer: Answer | Exception) -> bool:
        while not self._has_stopped.is_set():
            with suppress(Full):
                self._told.put(answer, timeout=LOOK_SECONDS)
                return True
        return False

    def _answers(self, node: str | None, units: Sequence[Unit]) -> Iterator[Answer]:
        import pyarrow

        data = self._ray.data
        tables = [pyarrow.table({k: [v] for k, v in unit._asdict().items()}) for unit in units]
        shares = self._machines.shares
        chosen = list(shares.values()) if node is None else [shares[node]]
        actors = min(sum(share.count for share in chosen), len(units))
        answers = data.from_arrow(tables).map_batches(
            Scorer,
            batch_size=1,
            batch_format="pyarrow",
            # A pool that may shrink makes room for an actor that begins again after its node went.
            compute=data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
            fn_constructor_args=(self._spec, self.blocks),
            **_options(node, chosen[0]),
        )
        for table in answers.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
            yield from (Answer(**row) for row in table.to_pylist())


def _options(node: str | None, share: Share) -> dict[str, Any]:
    """Where actors run; on another machine when that one is lost, and not for ever in vain."""
    options = {**share.options, "max_restarts": RETRIES, "max_task_retries": RETRIES}
    if node is None:
        return options
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node, soft=True)
    return {**options, "scheduling_strategy": strategy}
