"""A runner over a pool of toy engines, each in a process of its own that starts at once."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from pythia_bento.checkpoints.shelf import Shelf
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.group import EngineGroup
from pythia_bento.runtime.arena import SharedMemory
from pythia_bento.runtime.backend import GiveUp
from pythia_bento.runtime.devices import Device
from pythia_bento.runtime.model_info import ModelInfo, Progress
from pythia_bento.runtime.pool.pool import EnginePool
from pythia_bento.runtime.pool.replica import Replica
from pythia_bento.runtime.process import EngineProcess
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.unit.engine.gate import FarGate
from tests.unit.runtime.toy_runner import INFO, settled, toy_engine_of
from tests.unit.runtime.toy_shelf import ToyShelf, info_of, toy_group

Load = Callable[..., Any]


def load_toy(settings: Settings, on_progress: Progress) -> tuple[Engine, ModelInfo]:
    return toy_engine_of(settings), INFO


def load_held(gate: FarGate, settings: Settings, on_progress: Progress) -> tuple[Engine, ModelInfo]:
    return toy_engine_of(settings, before=gate), INFO


def load_hanging(
    folder: Path, settings: Settings, on_progress: Progress
) -> tuple[Engine, ModelInfo]:
    """Does not come back while there is ``hang`` in ``folder``; puts its number there, then."""
    while (folder / "hang").exists():
        (folder / str(os.getpid())).touch()
        time.sleep(0.01)
    return load_toy(settings, on_progress)


def load_group(
    capacity: int, settings: Settings, on_progress: Progress
) -> tuple[EngineGroup, ModelInfo]:
    default = ToyShelf().default
    return toy_group(settings, default, capacity), info_of(default)


def gates(folder: Path, count: int = 2) -> list[FarGate]:
    """One for each engine."""
    for number in range(count):
        (folder / str(number)).mkdir()
    return [FarGate(folder / str(number)) for number in range(count)]


def held(gates: list[FarGate]) -> list[Load]:
    return [partial(load_held, gate) for gate in gates]


@contextlib.contextmanager
def toy_pool(
    *loads: Load,
    starts: Callable[[], object] = lambda: None,
    shelf: ToyShelf | None = None,
    **settings: Any,
) -> Iterator[PythiaRunner]:
    """An engine for each of ``loads``; ``starts`` is called before one is started."""
    chosen = Settings(**{"default_seed": 0} | settings)
    memory = SharedMemory(chosen.capture_bytes)

    def start(device: Device, on_progress: Progress, give_up: GiveUp) -> EngineProcess:
        starts()
        return EngineProcess(chosen, on_progress, loads[device.number], memory, device, give_up)

    devices = [Device("cpu", number, number, len(loads)) for number in range(len(loads))]
    pool = EnginePool(devices, start, lambda what, done, total: None)
    with PythiaRunner(pool, pool.info, chosen, cast(Shelf, shelf), memory) as runner:
        yield runner
        if runner.is_ready:
            settled(runner)


def engines(runner: PythiaRunner) -> list[Replica | None]:
    assert runner._pool is not None
    return [place.replica for place in runner._pool._places]


def engine(runner: PythiaRunner, number: int) -> Replica:
    found = engines(runner)[number]
    assert found is not None
    return found


def pid(replica: Replica) -> int:
    found = replica.process._process.pid
    assert found is not None
    return found


def counts(runner: PythiaRunner, name: str) -> list[int]:
    return [getattr(state, name) for state in runner.replicas]


def where(runner: PythiaRunner) -> list[Mapping[str, str]]:
    """State of each checkpoint, by engine."""
    return [
        {} if one is None else {key: found.state for key, found in one.residencies.items()}
        for one in engines(runner)
    ]
