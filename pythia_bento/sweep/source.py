"""What a sweep asks: checkpoints of this process, or of a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pythia_bento.errors import PythiaError
from pythia_bento.sweep.events import Row, Seconds
from pythia_bento.sweep.spec import Item, SweepSpec

Numbered = tuple[int, Item]  # with its place in the request


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a checkpoint before it is asked; see ``events.Checkpoint``."""

    step: int | None
    commit: str | None
    weights: str
    fingerprint: str
    same_weights: tuple[str, ...] = ()


class Target(Protocol):
    """One checkpoint that answers."""

    block: int
    """Items to ask at a time: as many as it computes together."""

    def rows(self, items: Sequence[Numbered]) -> AsyncGenerator[Row, None]:
        """One row for each, in the order in which they come; closing it ends what is under way.

        What is wrong with an item is its row's ``error``. Raises PythiaError where the checkpoint
        cannot answer.
        """
        ...

    def seconds(self) -> Seconds:
        """Where the time went, so far."""
        ...


class Source(Protocol):
    """Checkpoints by their ids."""

    default: str
    """Id of the one that answers where none is named."""

    @property
    def ahead(self) -> int:
        """Checkpoints that may be asked at a time: more would take each other's place."""
        ...

    @property
    def engines(self) -> int:
        """That compute at a time, each on a device of its own."""
        ...

    async def steps(self, name: str) -> set[int]:
        """Of a model's bare name: those that can be asked for."""
        ...

    async def look(self, names: Sequence[str]) -> list[Facts | PythiaError]:
        """What each name means, or why it means nothing here."""
        ...

    async def prepare(self, name: str) -> None:
        """Let it be loaded, as it will be asked soon. Raises nothing."""
        ...

    async def open(self, name: str, index: int, spec: SweepSpec) -> Target:
        """The checkpoint of a name, whose rows have ``index``; raises PythiaError."""
        ...
