"""A source that answers at once, or when a test lets it, and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pythia_bento.errors import ModelNotFound, PythiaError
from pythia_bento.protocol.parsing import parse
from pythia_bento.sweep.events import Row, Seconds
from pythia_bento.sweep.source import Facts, Numbered
from pythia_bento.sweep.spec import SweepSpec


def spec(items: int = 3, **fields: Any) -> SweepSpec:
    texts = [{"id": f"item {number}", "prompt": [5, 6, 7 + number]} for number in range(items)]
    return parse(SweepSpec, {"items": texts, **fields})


class FakeSource:
    """Its weights are ``w<step>`` unless ``same`` says whose they are."""

    default = "bundled"

    def __init__(self, steps: Sequence[int] = (0, 1, 2, 3), ahead: int = 1) -> None:
        self.known, self.ahead, self.block = list(steps), ahead, 2
        self.engines = 1
        self.same: dict[int, int] = {}
        self.faults: dict[str, Exception] = {}
        self.gates: dict[str, asyncio.Event] = {}  # before the second row
        self.asked: list[str] = []
        self.prepared: list[str] = []
        self.numbers: list[int] = []
        self.under_way = 0

    async def steps(self, name: str) -> set[int]:
        return set(self.known)

    async def look(self, names: Sequence[str]) -> list[Facts | PythiaError]:
        return [self._look(name) for name in names]

    def _look(self, name: str) -> Facts | PythiaError:
        step = int(name.partition("@step")[2])
        if step not in self.known:
            return ModelNotFound(f"{name} is not here")
        return Facts(step, "c" * 40, f"w{self.same.get(step, step)}", f"print {step}")

    async def prepare(self, name: str) -> None:
        self.prepared.append(name)

    async def open(self, name: str, index: int, spec: SweepSpec) -> FakeTarget:
        self.asked.append(name)
        return FakeTarget(self, name, index)


class FakeTarget:
    def __init__(self, source: FakeSource, name: str, index: int) -> None:
        self._source, self._name, self._index = source, name, index
        self.block = source.block

    async def rows(self, items: Sequence[Numbered]) -> AsyncGenerator[Row, None]:
        self._source.under_way += 1
        try:
            for number, item in items:
                await asyncio.sleep(0)
                if number and (gate := self._source.gates.get(self._name)):
                    await gate.wait()
                if number and (fault := self._source.faults.get(self._name)):
                    raise fault
                self._source.numbers.append(number)
                yield Row(checkpoint=self._index, item=number, id=item.id, logprob=-1.0 - number)
        finally:
            self._source.under_way -= 1

    def seconds(self) -> Seconds:
        return Seconds(1.0, 2.0, 3.0)
