"""A runner over a group of toys: six steps of one model behind one shelf, and room for two."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pythia_bento.catalog import SIZES
from pythia_bento.checkpoints.shelf import Shelf
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.group import EngineGroup
from pythia_bento.engine.members import Loaded, LoadEnd
from pythia_bento.errors import InvalidRequest, ModelNotFound, PythiaError
from pythia_bento.runtime.loading import limits_of
from pythia_bento.runtime.model_info import ModelInfo, Provenance
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.unit.engine.toy import BLOCK_SIZE, MAX_POSITIONS, TOKENIZER, ToyExecutor, ToyModel
from tests.unit.engine.toy_group import ToyLoader
from tests.unit.runtime.toy_runner import settled

STEPS = (3, 1, 2, 5, 8, 13)  # the first is the default
DEFAULT, COLD, BROKEN = "toy@step3", "toy@step1", "toy@step13"
BLOCKS = 64


class ToyShelf:
    """Stands where ``Shelf`` stands."""

    def __init__(self) -> None:
        self._entries = [_entry(step) for step in STEPS]
        self.looks: list[str] = []

    @property
    def default(self) -> ShelfEntry:
        return self._entries[0]

    @property
    def last_seen(self) -> list[ShelfEntry]:
        return self._entries

    def entries(self) -> list[ShelfEntry]:
        return [self.default, *sorted(self._entries[1:], key=lambda entry: entry.step or 0)]

    def ids(self) -> list[str]:
        return [name for entry in self._entries for name in entry.names]

    def known(self, name: str) -> ShelfEntry | None:
        return None

    def find(self, name: str) -> ShelfEntry:
        self.looks.append(name)
        if name.startswith("other"):
            raise InvalidRequest(f"{name} has 12 layers of 768, but ...", param="model")
        for entry in self._entries:
            if name in entry.names:
                return entry
        raise ModelNotFound(f"{name[:100]} is not served here; the nearest ...", param="model")


class _Loader(ToyLoader):
    """Of entries, whose weights are their step; nothing arrives while ``gate`` is shut."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        super().__init__()
        self._gate = gate

    def take(self) -> LoadEnd | None:
        end = super().take() if self._gate is None or self._gate.is_set() else None
        if end is None or not isinstance(end.found, Loaded):
            return end
        return LoadEnd(end.key, Loaded(end.found.weights.step, TOKENIZER, end.key.encode()))


@contextlib.contextmanager
def toy_shelf(
    capacity: int = 2,
    fault: PythiaError | None = None,
    gate: threading.Event | None = None,
    **settings: Any,
) -> Iterator[PythiaRunner]:
    """Closed at the end, after a look at whether all blocks are back. ``fault`` is BROKEN's."""
    chosen = Settings(**{"default_seed": 0} | settings)
    shelf, loader = ToyShelf(), _Loader(gate)
    if fault is not None:
        loader.faults["w13"] = fault
    group = toy_group(chosen, shelf.default, capacity, loader)
    with PythiaRunner(group, info_of(shelf.default), chosen, cast(Shelf, shelf)) as runner:
        yield runner
        if runner.is_ready:
            settled(runner)
            group.check()


@contextlib.contextmanager
def toy_step(step: int, **settings: Any) -> Iterator[PythiaRunner]:
    """A runner of one step alone: what the others' answers are compared with."""
    chosen = Settings(**{"default_seed": 0} | settings)
    entry = _entry(step)
    group = toy_group(chosen, entry, 1, _Loader())
    alone = SimpleNamespace(
        default=entry, entries=lambda: [entry], last_seen=[entry], find=lambda name: entry
    )
    with PythiaRunner(group, info_of(entry), chosen, cast(Shelf, alone)) as runner:
        yield runner


def toy_group(
    settings: Settings, default: ShelfEntry, capacity: int, loader: _Loader | None = None
) -> EngineGroup:
    batch, cache_tokens = settings.batch_size("cpu"), BLOCKS * BLOCK_SIZE
    limits = limits_of(settings, TOKENIZER.num_tokens, MAX_POSITIONS, cache_tokens, batch)
    model = ToyModel()
    model.weights = default.step
    group = EngineGroup(
        ToyExecutor(model, EngineConfig(BLOCKS, max_batch_size=batch)),
        Loaded(default.step, TOKENIZER, default.weights.encode()),
        limits,
        loader or _Loader(),
        default_key=default.weights,
        default_entry=default,
        capacity=capacity,
        turn_seconds=0.0,
        max_cold=settings.max_cold,
    )
    group.pin(default.weights, is_pinned=True)
    return group


def _entry(step: int) -> ShelfEntry:
    names = (f"toy@step{step}", f"owner/toy@step{step}")
    return ShelfEntry(
        name=names[0],
        names=names,
        step=step,
        commit=None,
        path=Path("toy"),
        files={"tokenizer.json": "toys"},  # the same of all, hence one tokenizer
        weights=f"w{step}",
        config=SIZES["14m"].config,
        nbytes=1000 + step,
        quantization="none",
        same_weights=(),
        created=1700000000,
    )


def info_of(entry: ShelfEntry) -> ModelInfo:
    origin = Provenance(
        commit=None,
        files=entry.files,
        weights_sha256=entry.weights,
        quantization=entry.quantization,
        dtype="int8",
        matmul="w8a16",
        backend="cpu",
        batch_invariant=True,
        version="0",
    )
    return ModelInfo("", provenance=origin).of(entry)
