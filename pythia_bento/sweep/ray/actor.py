"""What runs on the machines of a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from pythia_bento.errors import EngineUnavailable, PythiaError
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.sweep.at_hand import AtHand, Together
from pythia_bento.sweep.events import Checkpoint, Failed, Row
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.local import opened
from pythia_bento.sweep.ray.wire import encode
from pythia_bento.sweep.run import run
from pythia_bento.sweep.source import Facts
from pythia_bento.sweep.spec import Item, SweepSpec

# Of answers; all other columns are text.
COLUMNS = {"group": "int64", "block": "int64", "rows": "large_binary"}


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What one machine has of some models; errors as sentences, to be told elsewhere."""

    steps: dict[str, set[int]]
    facts: dict[str, Facts]  # by id
    faults: dict[str, str]


def look(names: Sequence[str]) -> OnDisk:
    """At this machine's store, for models by their bare names; raises PythiaError."""
    found = AtHand.of(names)
    told = {id: found.look(id) for id in (*found.entries, *found.faults)}
    return OnDisk(
        {name: found.steps(name) for name in names},
        {id: one for id, one in told.items() if isinstance(one, Facts)},
        {id: one.message for id, one in told.items() if isinstance(one, PythiaError)},
    )


@dataclass(slots=True)
class _Found:
    """What a unit led to, so far."""

    rows: list[Row] = field(default_factory=list)
    fingerprint: str = ""
    error: str | None = None


def _failed(error: PythiaError) -> _Found:
    """A checkpoint's fault is an answer; an engine's is not, and ends this process.

    So it does where a machine leaves in order: Ray begins the actor anew, with what it was at.
    """
    if isinstance(error, EngineUnavailable):
        os._exit(1)
    return _Found(error=error.message)


class Scorer:
    """Called by Ray Data with one unit at a time, a table of one row."""

    def __init__(self, spec: SweepSpec, blocks: Sequence[Any]) -> None:
        """``spec`` has no items: ``blocks`` are references to (place of the first, items)."""
        self._spec, self._blocks = spec, blocks
        self._open = ExitStack()
        self._part: Together | None = None
        self._runner: PythiaRunner | Mapping[str, PythiaError] = {}
        self._loop = asyncio.new_event_loop()

    def __call__(self, batch: Any) -> Any:
        """Rows of the unit as bytes, or why its checkpoint has none."""
        import pyarrow
        import ray

        [unit] = batch.to_pylist()
        first, items = ray.get(self._blocks[unit["block"]])
        found = self._answer(unit["model"], first, items)
        told = {
            "group": unit["group"],
            "block": unit["block"],
            "rows": encode(sorted(found.rows, key=lambda row: row.item)),
            "fingerprint": found.fingerprint,
            "error": found.error,
        }
        types = {name: COLUMNS.get(name, "string") for name in told}
        return pyarrow.table(
            {name: pyarrow.array([value], types[name]) for name, value in told.items()}
        )

    def close(self) -> None:
        """Free the device; where Ray ends the process nobody has to."""
        self._open.close()
        self._loop.close()

    def _answer(self, model: str, first: int, items: Sequence[Item]) -> _Found:
        try:
            runner = self._runner_of(model)
        except PythiaError as error:
            return _failed(error)
        if not isinstance(runner, PythiaRunner):
            return _failed(runner[model])
        return self._loop.run_until_complete(self._ask(runner, model, first, items))

    def _runner_of(self, model: str) -> PythiaRunner | Mapping[str, PythiaError]:
        """The one for the checkpoint's shape, which stays until another shape is asked for."""
        if isinstance(self._runner, PythiaRunner) and self._part and model in self._part.ids:
            return self._runner
        self._open.close()
        self._part, self._runner = None, {}
        names = dict.fromkeys(id.partition("@")[0] for id in self._spec.models or ())
        found = AtHand.of(list(names))
        if isinstance(fault := found.look(model), PythiaError):
            raise fault
        parts = found.together(self._spec.models or ())
        self._part = next(part for part in parts if model in part.ids)
        nobody = opened(self._part, [model], lambda what, done, total: None)
        self._runner = self._open.enter_context(nobody)
        return self._runner

    async def _ask(
        self, runner: PythiaRunner, model: str, first: int, items: Sequence[Item]
    ) -> _Found:
        spec = self._spec.model_copy(update={"models": (model,), "items": tuple(items)})
        found = _Found()
        async for event in run(spec, Here(runner)):
            if isinstance(event, Row):
                found.rows.append(replace(event, item=first + event.item))
            elif isinstance(event, Checkpoint):
                found.fingerprint = event.system_fingerprint
            elif isinstance(event, Failed):
                return _failed(event.error)
        return found
