"""The checkpoints of a group, and what brings their weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.params import Request
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import PythiaError

Source = Literal["disk", "host"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint that is ready to compute."""

    weights: Any  # as ``Executor.activate`` takes them
    tokenizer: Tokenizer
    root: bytes  # see ``Engine``
    source: Source = "disk"  # where the weights came from


class LoadEnd(NamedTuple):
    """What became of loading a checkpoint."""

    key: str
    found: Loaded | PythiaError | MemoryError


class Loader(Protocol):
    """Loads one checkpoint at a time, on a thread of its own."""

    progress: int  # grows while something is being loaded: who watches sees that it gets on

    def begin(self, key: str, entry: Any) -> None:
        """Begin to load what ``entry`` describes; nothing else is being loaded."""
        ...

    def expect(self, entry: Any) -> None:
        """What will be loaded from the disk after this one; None where nothing is known to be."""
        ...

    def take(self) -> LoadEnd | None:
        """What became of it, once; None while it is not done."""
        ...

    def keep(self, key: str, weights: Any) -> bool:
        """Weights leave the device: whether they are kept where they come back from soon."""
        ...

    def take_dropped(self) -> list[str]:
        """Keys of those that were kept and are no more, since others had to be; each once."""
        ...

    def has_changed(self, entry: Any) -> bool:
        """Whether its files are others than when it failed."""
        ...

    def wait(self, seconds: float) -> None:
        """Until something is done, or ``wake`` is called."""
        ...

    def wake(self) -> None:
        """Let ``wait`` return. In any thread."""
        ...

    def close(self) -> None:
        """End the thread, and drop what it keeps."""
        ...


@dataclass(slots=True)
class Member:
    """One checkpoint."""

    entry: Any  # what a loader loads it by
    engine: Engine | None = None  # from the first time on that it was loaded
    weights: Any = None  # while they are on the device
    waiting: dict[str, Request] = field(default_factory=dict)  # for the engine, by request id

    @property
    def has_work(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self.waiting) or (self.engine is not None and self.engine.has_work)

    @property
    def is_running(self) -> bool:
        """Whether a sequence of its own holds blocks."""
        return self.engine is not None and self.engine.is_running

    @property
    def can_compute(self) -> bool:
        """Whether there is something to do and everything to do it with."""
        return self.weights is not None and self.engine is not None and self.engine.has_work
