"""What one server may be asked for: its own model, and what patterns match of bundle and store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from pythia_bento import catalog
from pythia_bento.catalog import BUNDLED, MAIN, MODELS, ModelId, nearest, nearest_steps, parse
from pythia_bento.checkpoints.bundle import BUNDLED_ROOT
from pythia_bento.checkpoints.files import stamp
from pythia_bento.checkpoints.lock import LOCK, LockFile
from pythia_bento.checkpoints.patterns import Pattern, parse_patterns
from pythia_bento.checkpoints.shelf_entry import ShelfEntry, entry_of
from pythia_bento.checkpoints.shelf_sources import BundledSteps, Found, PulledModels
from pythia_bento.errors import InvalidRequest, ModelNotFound, PythiaError
from pythia_bento.model.config import ModelConfig

__all__ = ["Shelf", "ShelfEntry", "entry_of"]  # what users of a shelf need

SCAN_SECONDS = 1.0
"""The store is looked at again no sooner than this after it was."""
_SETTLED_NS = 2 * 10**9  # a file changed later than this ago may change again within one tick
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is on the shelf at one moment."""

    entries: list[ShelfEntry]  # the default first
    by_name: dict[str, ShelfEntry]
    faults: dict[str, PythiaError] = field(default_factory=dict)  # by id


class Shelf:
    """The entries of one shape that a server answers with, by all their ids. For any thread.

    The store may change at any time: what came is found when it is asked for; what makes no sense
    is one line in the log, and an error of those who ask for it.
    """

    def __init__(
        self, default: ShelfEntry, patterns: str, bundled_root: Path = BUNDLED_ROOT
    ) -> None:
        """Raises ValueError for patterns that are none, CheckpointError for a broken lock."""
        self._own = default
        self._patterns: dict[str, list[Pattern]] = {}
        for pattern in parse_patterns(patterns):
            self._patterns.setdefault(pattern.name, []).append(pattern)
        self._bundled = BundledSteps(bundled_root)
        self._pulled = PulledModels()
        self._lock = LockFile()
        self._mutex = threading.Lock()
        self._told: set[str] = set()
        self._watched: list[str] = []
        self._seen: list[tuple[int, int, int]] | None = None
        self._now = _Contents([default], dict.fromkeys(default.names, default))
        self.rescan()

    @property
    def default(self) -> ShelfEntry:
        """What a request that names no model gets."""
        return self._now.entries[0]

    @property
    def last_seen(self) -> list[ShelfEntry]:
        """``entries`` without a look at anything."""
        return self._now.entries

    def entries(self) -> list[ShelfEntry]:
        """The default, then the others by step, as they were a second ago at the most."""
        self._refresh()
        return list(self._now.entries)

    def ids(self) -> list[str]:
        """All that mean something here, those of what makes no sense among them."""
        self._refresh()
        return [*self._now.by_name, *self._now.faults]

    def known(self, name: str) -> ShelfEntry | None:
        """``find`` without a look at anything: None where that may tell more."""
        return self._now.by_name.get(name)

    def find(self, name: str) -> ShelfEntry:
        """The entry that an id means.

        Raises ModelNotFound, which says what is nearest or how to get it; InvalidRequest for a
        model of another shape; CheckpointError for one that the store has and that makes no sense.
        """
        if name not in self._now.by_name:
            self._refresh()
        now = self._now
        if name not in now.by_name:
            raise self._refusal(name, now)
        return now.by_name[name]

    def rescan(self) -> None:
        """Look at bundle, store and lock now."""
        with self._mutex:
            self._scan()

    def _refresh(self) -> None:
        with self._mutex:
            if time.monotonic() - self._scanned >= SCAN_SECONDS:
                self._scan()

    def _scan(self) -> None:
        self._scanned = time.monotonic()
        seen = list(map(stamp, self._watched))
        if self._seen == seen and max(seen)[0] < time.time_ns() - _SETTLED_NS:
            return
        try:
            found = self._look()
        except OSError as error:  # what was there a moment ago is the better answer
            self._tell(f"the store cannot be read: {error}")
            return
        if self._watched != found.watched:  # what they were before this look nobody knows
            self._watched, seen = found.watched, []
        self._seen = seen
        for message in sorted({error.message for error in found.faults.values()}):
            self._tell(message)
        self._now = self._merged(found)

    def _look(self) -> Found:
        found = Found()
        found.watch(LOCK)
        for name, patterns in self._patterns.items():
            if name == BUNDLED:
                self._bundled.find(patterns, found)
            else:
                self._pulled.find(ModelId(name), patterns, self._lock.now(), found)
        return found

    def _merged(self, found: Found) -> _Contents:
        """One entry for equal weights, under all names, of which each means one."""
        served, faults = self._own.config, dict(found.faults)
        own = self._own.named(tuple(name for name in self._own.names if self._is_own(name)))
        by_weights, taken = {own.weights: own}, set(own.names)
        for entry in sorted(found.entries, key=_place):
            if entry.config != served:
                error = InvalidRequest(_other_shape(entry.name, entry.config, served))
                faults |= dict.fromkeys(entry.names, error)
            elif free := tuple(name for name in entry.names if name not in taken):
                known = by_weights.get(entry.weights)
                names = (*known.names, *free) if known else free
                by_weights[entry.weights] = (known or entry).named(names)
                taken.update(free)
        entries = list(by_weights.values())
        by_name = {name: entry for entry in entries for name in entry.names}
        return _Contents(entries, by_name, {n: e for n, e in faults.items() if n not in taken})

    def _is_own(self, name: str) -> bool:
        """Whether a name of the default still means it.

        A server of one step answers to the bare name of its model too. Where main is, or could be,
        on the shelf that name means main.
        """
        if "@" in name or name == self._own.name or f"{name}@{MAIN}" in self._own.names:
            return True
        return not self._matches(parse(name))

    def _matches(self, model: ModelId) -> bool:
        return any(pattern.matches(model) for pattern in self._patterns.get(model.name, ()))

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            _log.warning("not on the shelf: %s", message)

    def _refusal(self, name: str, now: _Contents) -> PythiaError:
        """Why an id means nothing here, and what may help."""
        try:
            asked = parse(name)
        except ModelNotFound:
            return _unlike(name, now.entries)
        if fault := now.faults.get(name) or now.faults.get(str(asked)):
            return type(fault)(fault.message, param="model")
        if self._matches(asked) and not asked.is_bundled:
            return self._absent(asked)
        return _near_step(name, asked, now) or _unlike(name, now.entries)

    def _absent(self, asked: ModelId) -> PythiaError:
        """What matches a pattern and is not in the store."""
        from pythia_bento.checkpoints.resolve import not_in_store

        is_own = any(name.startswith(f"{asked.name}@") for name in self._own.names)
        if asked.name in MODELS and not is_own:
            shape, served = catalog.config(asked.name), self._own.config
            if _size(shape) != _size(served):
                return InvalidRequest(_other_shape(str(asked), shape, served), param="model")
        return ModelNotFound(not_in_store(asked, self._lock.now().get(asked)), param="model")


def _place(entry: ShelfEntry) -> tuple[bool, int, str]:
    return entry.step is None, entry.step or 0, entry.name


def _size(config: ModelConfig) -> tuple[int, int]:
    return config.num_layers, config.hidden_size


def _other_shape(name: str, shape: ModelConfig, served: ModelConfig) -> str:
    theirs, ours = (f"{layers} layers of {width}" for layers, width in map(_size, (shape, served)))
    if theirs == ours:
        pairs = [(f.name, getattr(shape, f.name), getattr(served, f.name)) for f in fields(served)]
        theirs, ours = next((f"{name} {one}", f"{two}") for name, one, two in pairs if one != two)
    return (
        f"{name} has {theirs}, but this server computes {ours}; one server serves checkpoints of "
        "one shape"
    )


def _near_step(name: str, asked: ModelId, now: _Contents) -> ModelNotFound | None:
    """By number, where others of the same model are there, spelled as it was asked for."""
    if asked.step is None or len(now.entries) == 1:
        return None
    model = name.partition("@")[0]
    revisions = (id.removeprefix(f"{model}@") for id in now.by_name if id.startswith(f"{model}@"))
    steps = {step for revision in revisions if (step := asked.at(revision).step) is not None}
    if not steps:
        return None
    near = [f"{model}@{step}" for step in nearest_steps(asked.step, steps, count=2)]
    are = f"are {' and '.join(near)}" if len(near) > 1 else f"is {near[0]}"
    return ModelNotFound(f"{name} is not served here; the nearest {are}", param="model")


def _unlike(name: str, entries: list[ShelfEntry]) -> ModelNotFound:
    names = [known for entry in entries for known in entry.names]
    if len(entries) > 1:  # commits are like nothing that people write, and many
        names = [name for name in names if not ModelId(*name.partition("@")[::2]).is_commit]
    return not_served(name, names)


def not_served(name: str, names: Sequence[str]) -> ModelNotFound:
    """What is said of a name that none of ``names`` is: those that are spelled most like it."""
    # Each is there with and without its owner: only those of the asker's form.
    alike = [known for known in names if ("/" in known) == ("/" in name)]
    hint = f"the nearest names are {', '.join(nearest(name, alike or names))}"
    return ModelNotFound(f"model {name[:100]!r} is not served here; {hint}", param="model")
