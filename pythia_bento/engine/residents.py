"""Which checkpoints are on the device, and who makes room for whom. Policy alone.

A checkpoint comes to the device when somebody asks for it, and stays until another needs its place:
then the one goes that was used longest ago, never one that is pinned or has sequences running.
Where all have, the one that has been there longest begins nothing more, and goes when its last
sequence has ended: what waits for it then waits for its return.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from pythia_bento.errors import PythiaError

State = Literal["disk", "loading", "host", "device", "failed"]

# On the device, before it is to make room for others that wait: a tenth of that for loading.
LOADS = 10
LEAST_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Residency:
    """Where the weights of one checkpoint are."""

    state: State = "disk"
    is_pinned: bool = False  # it stays on the device once it is there
    last_used: float = 0.0  # Unix time; 0 is never
    error: PythiaError | None = None  # why it could not be loaded
    since: float = 0.0  # of the clock: when it came to the device


class Residents:
    """``capacity`` places on the device, those being loaded into among them."""

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        if capacity < 1:
            raise ValueError("there must be a place for one checkpoint")
        self.capacity = capacity
        self.all: dict[str, Residency] = {}
        """By key; replaced by another mapping whenever it changes, so that others may read it."""
        self.draining: str | None = None  # it begins nothing more
        self.evictions = 0
        self._clock = clock
        self._used: dict[str, float] = {}  # by the clock
        self._load_seconds = 0.0  # what the last load took

    def __getitem__(self, key: str) -> Residency:
        return self.all.get(key, Residency())

    @property
    def on_device(self) -> list[str]:
        """Keys of those that can compute."""
        return [key for key, one in self.all.items() if one.state == "device"]

    @property
    def loading(self) -> list[str]:
        """Keys of those that have a place and are on their way to it."""
        return [key for key, one in self.all.items() if one.state == "loading"]

    def put(self, key: str, state: State, *, error: PythiaError | None = None) -> None:
        """It is there now."""
        now = self._clock()
        if state == "device" and self[key].state == "loading":
            self._load_seconds = now - self[key].since
        since = now if state in ("loading", "device") else 0.0
        self._set(key, replace(self[key], state=state, error=error, since=since))

    def pin(self, key: str, *, is_pinned: bool) -> None:
        """Whether it may be evicted once it is on the device."""
        self._set(key, replace(self[key], is_pinned=is_pinned))

    def use(self, key: str) -> None:
        """It computes."""
        self._used[key] = self._clock()
        used = time.time()
        if used - self[key].last_used >= 1:
            self._set(key, replace(self[key], last_used=used))

    @property
    def has_room(self) -> bool:
        """Whether another one may be loaded without an eviction."""
        return len(self.on_device) + len(self.loading) < self.capacity

    def victim(self, is_running: Callable[[str], bool], has_work: Collection[str]) -> str | None:
        """Who makes room now; None where nobody can: then one may be told to begin nothing more.

        Of those that have no work the one used longest ago, else one that was told so.
        """
        free = [key for key in self._evictable() if not is_running(key)]
        idle = [key for key in free if key not in has_work]
        if idle:
            return min(idle, key=lambda key: self._used.get(key, 0.0))
        if self.draining in free:
            return self.draining
        self._drain()
        return self.draining if self.draining in free else None

    def _drain(self) -> None:
        """Choose who is to go, of those that were there long enough to be worth their loading."""
        if self.draining is not None and self[self.draining].state == "device":
            return
        long_ago = self._clock() - max(LOADS * self._load_seconds, LEAST_SECONDS)
        old = [key for key in self._evictable() if self[key].since <= long_ago]
        self.draining = min(old, key=lambda key: self[key].since, default=None)

    def evict(self, key: str, to: State = "disk") -> None:
        """It is not on the device any more."""
        self.evictions += 1
        if self.draining == key:
            self.draining = None
        self.put(key, to)

    def _evictable(self) -> Iterable[str]:
        return [key for key in self.on_device if not self[key].is_pinned]

    def _set(self, key: str, residency: Residency) -> None:
        self.all = self.all | {key: residency}
