"""A group of toys: weights are numbers, and loading them takes as long as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.group import EngineGroup
from pythia_bento.engine.members import Loaded, LoadEnd, Source
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request
from pythia_bento.engine.validate import Limits
from pythia_bento.errors import PythiaError
from tests.unit.engine.toy import (
    BLOCK_SIZE,
    MAX_POSITIONS,
    TOKENIZER,
    Before,
    ToyExecutor,
    ToyModel,
    request,
)


class ToyLoader:
    """Loads an entry, which is a number, in ``steps`` looks at it."""

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps
        self.progress = 0
        self.loads: list[str] = []
        self.kept: list[str] = []  # that it was asked to keep
        self.places = 0  # for those that it does keep
        self.on_host: list[str] = []
        self.dropped: list[str] = []
        self.faults: dict[str, PythiaError | MemoryError] = {}
        self.expected: list[Any] = []
        self.is_changed = False
        self.is_closed = False
        self._due: tuple[str, int] | None = None
        self._left = 0
        self._woken = threading.Event()

    def begin(self, key: str, entry: Any) -> None:
        assert self._due is None, "one at a time"
        self.loads.append(key)
        self._due, self._left = (key, entry), self.steps

    def take(self) -> LoadEnd | None:
        if self._due is None or self._left > 0:
            self._left -= 1
            self.progress += self._due is not None
            return None
        (key, entry), self._due = self._due, None
        if (fault := self.faults.get(key)) is not None:
            return LoadEnd(key, fault)
        source: Source = "host" if key in self.on_host else "disk"
        return LoadEnd(key, Loaded(entry, TOKENIZER, key.encode(), source))

    def keep(self, key: str, weights: Any) -> bool:
        self.kept.append(key)
        if self.places and key not in self.on_host:
            if len(self.on_host) == self.places:
                self.dropped.append(self.on_host.pop(0))
            self.on_host.append(key)
        return key in self.on_host

    def expect(self, entry: Any) -> None:
        self.expected.append(entry)

    def take_dropped(self) -> list[str]:
        dropped, self.dropped = self.dropped, []
        return dropped

    def has_changed(self, entry: Any) -> bool:
        return self.is_changed

    def wait(self, seconds: float) -> None:
        self._woken.wait(0.001)

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self.is_closed = True


def toy_group(
    num_models: int = 6,
    capacity: int = 2,
    *,
    num_blocks: int = 64,
    loader: ToyLoader | None = None,
    before: Before | None = None,
    turn_seconds: float = 0.0,
    max_cold: int = 64,
    **sizes: int,
) -> EngineGroup:
    """Of models m0, m1, ..., of which m0 is there from the start."""
    executor = ToyExecutor(ToyModel(), EngineConfig(num_blocks, **sizes), before)
    limits = Limits(TOKENIZER.num_tokens, MAX_POSITIONS, num_blocks * BLOCK_SIZE)
    group = EngineGroup(
        executor,
        Loaded(0, TOKENIZER, b"m0"),
        limits,
        loader or ToyLoader(),
        default_key="m0",
        default_entry=0,
        capacity=capacity,
        turn_seconds=turn_seconds,
        max_cold=max_cold,
    )
    for number in range(1, num_models):
        group.introduce(f"m{number}", number)
    return group


def alone(number: int, asked: Request) -> list[SequenceOutput]:
    """What an engine with these weights only answers."""
    model = ToyModel()
    model.weights = number
    engine = Engine(ToyExecutor(model, EngineConfig(64)), TOKENIZER)
    return engine.generate([replace(asked, weights="")])[0]


def ask(number: int, id: str, prompt: tuple[int, ...] = (5, 6, 7), **fields: Any) -> Request:
    """A request to m<number>; see ``toy.request``."""
    caller = fields.pop("caller", "anyone")
    return replace(request(id, prompt, **fields), weights=f"m{number}", caller=caller)


def run(group: EngineGroup, each: Callable[[list[SequenceOutput]], object] = len) -> list[Any]:
    """All outputs until nobody waits for any."""
    outputs: list[SequenceOutput] = []
    for _ in range(100_000):
        if not group.has_work:
            group.check()
            return outputs
        found = group.step()
        each(found)
        outputs += found
    raise AssertionError("it never ends")
