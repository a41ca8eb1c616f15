"""What this machine has of some models, and runners for it: one shape after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pythia_bento.catalog import BUNDLED, ModelId, parse
from pythia_bento.checkpoints.bundle import BUNDLED_ROOT
from pythia_bento.checkpoints.lock import LockFile
from pythia_bento.checkpoints.patterns import Pattern
from pythia_bento.checkpoints.resolve import not_in_store
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.checkpoints.shelf_sources import BundledSteps, Found, PulledModels
from pythia_bento.errors import ModelNotFound, PythiaError
from pythia_bento.model.config import ModelConfig
from pythia_bento.sweep.source import Facts

MAX_NAMES = 64  # of one runner: as many as its setting takes


@dataclass(frozen=True, slots=True)
class Together:
    """Checkpoints of one shape, which one runner computes."""

    names: tuple[str, ...]
    ids: tuple[str, ...]

    @property
    def patterns(self) -> str:
        """As the setting ``models`` takes them."""
        return ",".join(f"{name}@*" for name in self.names)


@dataclass(slots=True)
class AtHand:
    """Entries and faults by id, of the models that were asked for."""

    entries: dict[str, ShelfEntry] = field(default_factory=dict)
    faults: dict[str, PythiaError] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str]) -> AtHand:
        """Bare names, as ``ModelId`` has them; raises CheckpointError and OSError."""
        lock, found = LockFile().now(), Found()
        for name in dict.fromkeys(names):
            if name == BUNDLED:
                BundledSteps(BUNDLED_ROOT).find([Pattern(name, "*")], found)
            else:
                PulledModels().find(ModelId(name), [Pattern(name, "*")], lock, found)
        entries = {id: entry for entry in found.entries for id in entry.names}
        return cls(entries, found.faults)

    def steps(self, name: str) -> set[int]:
        """Of a bare name, those that make no sense among them."""
        ids = (ModelId(*id.partition("@")[::2]) for id in (*self.entries, *self.faults))
        return {one.step for one in ids if one.name == name and one.step is not None}

    def look(self, id: str) -> Facts | PythiaError:
        """What an id means here, or why it means nothing."""
        if (entry := self.entries.get(id)) is not None:
            return Facts(entry.step, entry.commit, entry.weights, "", entry.same_weights)
        if (fault := self.faults.get(id)) is not None:
            return fault
        try:
            return ModelNotFound(not_in_store(parse(id), LockFile().now().get(parse(id))))
        except PythiaError as error:
            return error

    def together(self, ids: Sequence[str]) -> list[Together]:
        """Those of ``ids`` that are here, by shape, in the order of the first of each."""
        shapes: dict[ModelConfig, dict[str, list[str]]] = {}
        for id in ids:
            if (entry := self.entries.get(id)) is not None:
                by_name = shapes.setdefault(entry.config, {})
                by_name.setdefault(id.partition("@")[0], []).append(id)
        return [part for by_name in shapes.values() for part in _parts(by_name)]


def _parts(by_name: dict[str, list[str]]) -> list[Together]:
    names = list(by_name)
    cuts = [names[begin : begin + MAX_NAMES] for begin in range(0, len(names), MAX_NAMES)]
    return [Together(tuple(cut), tuple(id for name in cut for id in by_name[name])) for cut in cuts]
