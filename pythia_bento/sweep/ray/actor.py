"""What runs on the machines of a cluster: an engine, and the questions about its checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pythia_bento.errors import PythiaError
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import load_settings
from pythia_bento.sweep.events import Failed, Row
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.ray.wire import encode
from pythia_bento.sweep.run import run
from pythia_bento.sweep.source import Facts
from pythia_bento.sweep.spec import SweepSpec

Result = TypeVar("Result")


class Engine:
    """A ``PythiaRunner`` of this process, with a loop of its own."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Weights come from this machine's store; raises what ``PythiaRunner.load`` raises."""
        self._runner = PythiaRunner.load(load_settings(settings))
        self.here = Here(self._runner)
        self._loop = asyncio.new_event_loop()

    def wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What a coroutine gives."""
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        """Free the device."""
        self._runner.close()
        self._loop.close()


class Probe:
    """What one machine has on its disk."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._engine: Engine | None = None
        self._error = ""
        try:
            self._engine = Engine(settings)
        except PythiaError as error:  # this machine has nothing to compute with
            self._error = error.message

    def steps(self, name: str) -> set[int]:
        """See ``Source``."""
        return self._engine.wait(self._engine.here.steps(name)) if self._engine else set()

    def look(self, names: Sequence[str]) -> list[Facts | str]:
        """See ``Source``; of an error the sentence, as it is not to be unpickled elsewhere."""
        if self._engine is None:
            return [self._error] * len(names)
        found = self._engine.wait(self._engine.here.look(names))
        return [one.message if isinstance(one, PythiaError) else one for one in found]

    def close(self) -> None:
        """Make room for the actors."""
        if self._engine is not None:
            self._engine.close()


class Scorer:
    """Called by Ray Data with one unit at a time, in a table of one row."""

    def __init__(
        self, settings: Mapping[str, Any], spec: SweepSpec, blocks: Sequence[Any], size: int
    ) -> None:
        """``spec`` without items: these are ``blocks``, references of ``size`` items each."""
        self._engine = Engine(settings)
        self._spec, self._blocks, self._size = spec, blocks, size

    def __call__(self, batch: Any) -> Any:
        """Rows of the unit as bytes, or why its checkpoint has none."""
        import pyarrow
        import ray

        [unit] = batch.to_pylist()
        items = ray.get(self._blocks[unit["block"]])
        rows, error = self._engine.wait(self._ask(unit["model"], items))
        first = unit["block"] * self._size
        numbered = [replace(row, item=first + row.item) for row in rows]
        told = {"rows": [encode(numbered)], "error": [error]}
        types = {"rows": pyarrow.large_binary(), "error": pyarrow.string()}
        columns = {name: pyarrow.array(told[name], types[name]) for name in told}
        for name in ("group", "block"):
            columns[name] = pyarrow.array([unit[name]], pyarrow.int64())
        return pyarrow.table(columns)

    async def _ask(self, model: str, items: Sequence[Any]) -> tuple[list[Row], str | None]:
        spec = self._spec.model_copy(update={"models": (model,), "items": tuple(items)})
        rows: list[Row] = []
        async for event in run(spec, self._engine.here):
            if isinstance(event, Row):
                rows.append(event)
            elif isinstance(event, Failed):
                return [], event.error.message
        return sorted(rows, key=lambda row: row.item), None
