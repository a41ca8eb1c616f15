"""All checkpoints that a runner serves, by their names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pythia_bento.catalog import BUNDLED, ModelId
from pythia_bento.checkpoints.patterns import parse_patterns
from pythia_bento.checkpoints.shelf import Shelf, not_served
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.outputs import raise_error
from pythia_bento.engine.params import Request, SamplingParams, new_request_id
from pythia_bento.engine.residents import Residency
from pythia_bento.errors import PythiaError
from pythia_bento.runtime.backend import ShelfBackend
from pythia_bento.runtime.model_info import ModelInfo
from pythia_bento.runtime.pins import Pins
from pythia_bento.runtime.served import Desk, Served
from pythia_bento.runtime.tokenizers import Tokenizers
from pythia_bento.settings import Settings, SettingsError

_ALONE = Residency("device", is_pinned=True)


def shelf_of(settings: Settings, entry: ShelfEntry | None) -> Shelf | None:
    """What a server of this checkpoint may be asked for besides; None where nothing can be.

    Raises SettingsError. The bundled checkpoint's shape is no other model's, so its steps are on
    the shelf of that one alone.
    """
    if entry is None:
        return None
    names = {pattern.name for pattern in parse_patterns(settings.models)}
    if entry.name.partition("@")[0] != BUNDLED:
        names.discard(BUNDLED)
    return Shelf(entry, settings.models) if names else None


def pinned(settings: Settings, shelf: Shelf) -> list[ShelfEntry]:
    """What the settings name to stay on the device, beside the default; raises SettingsError."""
    try:
        return [shelf.find(id) for id in settings.pinned_ids]
    except PythiaError as error:
        raise SettingsError(f"setting pinned (PYTHIA_PINNED): {error.message}") from None


@dataclass(frozen=True, slots=True)
class ModelState:
    """A checkpoint that may be asked for, and where its weights are."""

    info: ModelInfo
    entry: ShelfEntry | None  # None of one whose origin is not known
    residency: Residency


class ServedModels:
    """Whoever asks by name gets a ``Served``, made once for each set of weights."""

    def __init__(self, default: Served, desk: Desk, shelf: Shelf | None) -> None:
        """Without a ``shelf`` there is ``default`` alone."""
        self._default, self._desk, self._shelf = default, desk, shelf
        self._made: dict[str, Served] = {}  # by weights
        self._tokenizers = Tokenizers()
        self._tokenizers.know(default.info.checkpoint, default.tokenizer)
        if default.info.checkpoint is not None:
            self._made[default.info.checkpoint.weights] = default

    @cached_property
    def _pins(self) -> Pins:
        """Those of the start, and what was asked for since."""
        thread = self._desk.thread
        pinned = [key for key, one in thread.residencies.items() if one.is_pinned]
        return Pins(pinned, thread.stats().group.places // self._desk.engines)

    @property
    def are_many(self) -> bool:
        """Whether others than the default may be asked for."""
        return self._shelf is not None

    async def find(self, name: str) -> Served:
        """The checkpoint of a name; raises ModelNotFound, InvalidRequest or CheckpointError."""
        shelf, info = self._shelf, self._default.info
        if shelf is None:
            if name not in (names := (info.id, *info.aliases)):
                raise not_served(name, names)
            return self._default
        entry = shelf.known(name)
        if entry is None:
            entry = await asyncio.to_thread(shelf.find, name)
        if (made := self._made.get(entry.weights)) is not None:
            return made
        return await asyncio.to_thread(self._make, entry)

    @property
    def on_disk(self) -> int:
        """Checkpoints that are nowhere else, of those that the shelf had when it was looked at."""
        if self._shelf is None:
            return 0
        where = self._desk.thread.residencies
        states = [where.get(entry.weights, Residency()).state for entry in self._shelf.last_seen]
        return states.count("disk")

    async def look(self, names: Sequence[str]) -> list[ModelInfo | PythiaError]:
        """What each name means, or what ``find`` would raise, without making anything ready."""
        return await asyncio.to_thread(lambda: [self._look(name) for name in names])

    async def steps(self, name: str) -> set[int]:
        """Of a model's bare name: those that can be asked for, or could but for a fault."""
        info, shelf = self._default.info, self._shelf
        ids = await asyncio.to_thread(shelf.ids) if shelf else [info.id, *info.aliases]
        found = (ModelId(*id.partition("@")[::2]) for id in ids)
        return {one.step for one in found if one.name == name and one.step is not None}

    @property
    def places(self) -> int:
        """For checkpoints that come and go: places on devices that no pin keeps."""
        if self._shelf is None:
            return 1
        thread = self._desk.thread
        num_pinned = sum(one.is_pinned for one in thread.residencies.values())
        return max(thread.stats().group.places - num_pinned * self._desk.engines, 1)

    @property
    def engines(self) -> int:
        """That compute at a time, each on a device of its own."""
        return self._desk.engines

    def residency(self, info: ModelInfo) -> Residency:
        """Where its weights are now."""
        if self._shelf is None or info.checkpoint is None:
            return _ALONE
        return self._desk.thread.residencies.get(info.checkpoint.weights, Residency())

    async def states(self) -> list[ModelState]:
        """All that may be asked for: the default, then the others by step."""
        default = self._default.info
        if self._shelf is None:
            return [ModelState(default, default.checkpoint, _ALONE)]
        entries = await asyncio.to_thread(self._shelf.entries)
        return [self._state(entry) for entry in entries]

    async def state(self, name: str) -> ModelState:
        """Of one; raises what ``find`` raises."""
        found = await self.find(name)
        entry = found.info.checkpoint
        if entry is None or self._shelf is None:
            return ModelState(found.info, entry, _ALONE)
        return self._state(entry)

    async def load(self, name: str, *, is_pinned: bool) -> ModelState:
        """Bring a checkpoint to the device; raises what keeps it from there.

        Raises InvalidRequest for a pin that would leave no place for any other checkpoint.
        """
        found = await self.find(name)
        if (entry := found.info.checkpoint) is not None and self.are_many:
            if is_pinned:
                self._pins.add(entry.weights)
            else:
                self._pins.discard(entry.weights)
            await self._order(lambda engine: engine.pin(entry.weights, is_pinned=is_pinned))
        for answer in (await found.complete([warm_up()]))[0]:
            raise_error(answer)
        return await self.state(name)

    async def unload(self, name: str) -> ModelState:
        """Evict a checkpoint as soon as nothing of it runs; its next request loads it again."""
        found = await self.find(name)
        if (entry := found.info.checkpoint) is not None and self.are_many:
            self._pins.discard(entry.weights)
            await self._order(lambda engine: engine.unload(entry.weights))
        return await self.state(name)

    def _look(self, name: str) -> ModelInfo | PythiaError:
        default, shelf = self._default.info, self._shelf
        try:
            if shelf is not None:
                return self._info(shelf.known(name) or shelf.find(name))
            if name in (names := (default.id, *default.aliases)):
                return default
            return not_served(name, names)
        except PythiaError as error:
            return error

    def _info(self, entry: ShelfEntry) -> ModelInfo:
        default = self._default.info
        is_default = default.checkpoint and default.checkpoint.weights == entry.weights
        return default if is_default else default.of(entry)

    async def _order(self, follow: Callable[[ShelfBackend], object]) -> None:
        await asyncio.wrap_future(self._desk.thread.order(follow))

    def pinned(self) -> list[Served]:
        """Those that are to be loaded at the start, the default first."""
        if self._shelf is None:
            return [self._default]
        entries = pinned(self._desk.settings, self._shelf)
        return [self._default, *(self._served(entry) for entry in entries)]

    def _served(self, entry: ShelfEntry) -> Served:
        return self._made.get(entry.weights) or self._make(entry)

    def _state(self, entry: ShelfEntry) -> ModelState:
        info = self._info(entry)
        return ModelState(info, entry, self.residency(info))

    def _make(self, entry: ShelfEntry) -> Served:
        default = self._default
        tokenizer = self._tokenizers.of(entry)
        limits = replace(default.limits, num_tokens=tokenizer.num_tokens)
        made = Served(self._desk, default.info.of(entry), tokenizer, limits, entry)
        return self._made.setdefault(entry.weights, made)


def warm_up() -> Request:
    """The least that brings a checkpoint to the device and shows that it computes."""
    return Request(new_request_id(), (0,), SamplingParams(max_tokens=1))
