"""Loads checkpoints on a thread of its own, while others compute. See ``engine.members.Loader``."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from pythia_bento.checkpoints.files import stamp
from pythia_bento.checkpoints.read_ahead import ReadAhead
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.members import Loaded, LoadEnd
from pythia_bento.errors import CheckpointError, EngineUnavailable, PythiaError
from pythia_bento.executor.out_of_memory import is_out_of_memory
from pythia_bento.model.kernels.gpu.host_slabs import HostSlabs

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0  # for a load that is under way

Load = Callable[[ShelfEntry, Callable[[int, int], None]], Loaded]
"""Loads an entry and reports (done, total) as it gets on."""
Stamps = tuple[tuple[int, int, int], ...]


class ThreadLoader:
    """One load at a time, by a function that may take seconds."""

    def __init__(
        self, load: Load, host: HostSlabs | None = None, ahead: ReadAhead | None = None
    ) -> None:
        """Start the thread. ``load`` raises CheckpointError and what is_out_of_memory knows.

        ``host`` keeps what leaves the device; ``ahead`` reads what comes next.
        """
        self._load, self._host, self._ahead = load, host, ahead
        self.progress, self._is_closed = 0, False
        self._asked: queue.SimpleQueue[tuple[str, ShelfEntry] | None] = queue.SimpleQueue()
        self._ends: queue.SimpleQueue[LoadEnd] = queue.SimpleQueue()
        self._woken = threading.Event()
        self._failed: dict[str, Stamps] = {}  # what the files were like, by weights
        self._thread = threading.Thread(target=self._run, name="pythia-loader", daemon=True)
        self._thread.start()

    def begin(self, key: str, entry: ShelfEntry) -> None:
        """See ``Loader.begin``."""
        self._asked.put((key, entry))

    def expect(self, entry: ShelfEntry | None) -> None:
        """See ``Loader.expect``."""
        if self._ahead is not None:
            self._ahead.next = entry

    def take(self) -> LoadEnd | None:
        """See ``Loader.take``."""
        try:
            return self._ends.get(block=False)
        except queue.Empty:
            return None

    def keep(self, key: str, weights: Any) -> bool:
        """See ``Loader.keep``."""
        return self._host is not None and self._host.put(key, weights)

    def take_dropped(self) -> list[str]:
        """See ``Loader.take_dropped``."""
        return self._host.take_dropped() if self._host else []

    def has_changed(self, entry: ShelfEntry) -> bool:
        """See ``Loader.has_changed``."""
        return self._failed.get(entry.weights) != _stamps(entry)

    def wait(self, seconds: float) -> None:
        """See ``Loader.wait``."""
        self._woken.wait(seconds)
        self._woken.clear()

    def wake(self) -> None:
        """See ``Loader.wake``."""
        self._woken.set()

    def close(self) -> None:
        """See ``Loader.close``; what is being loaded is given up with its next part."""
        self._is_closed = True
        if self._ahead is not None:
            self._ahead.next = None
            self._ahead.stop()
        self._asked.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._host and not self._thread.is_alive():
            self._host.close()

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            key, entry = asked
            self._failed.pop(entry.weights, None)
            before = _stamps(entry)
            found = self._found(entry)
            if isinstance(found, PythiaError):
                self._failed[entry.weights] = before
            self._ends.put(LoadEnd(key, found))
            del found
            self._woken.set()

    def _advance(self, done: int, total: int) -> None:
        self.progress += 1
        if self._is_closed:
            raise EngineUnavailable("the engine is closed")

    def _found(self, entry: ShelfEntry) -> Loaded | PythiaError | MemoryError:
        """Whatever happens to one checkpoint is no other's end."""
        try:
            return self._load(entry, self._advance)
        except PythiaError as error:
            return error.with_traceback(None)
        except Exception as error:
            if is_out_of_memory(error):
                return MemoryError()
            logger.exception("%s cannot be loaded", entry.name)
            name = type(error).__name__
            return CheckpointError(f"{entry.name} will not be served: {name} while it was loaded")


def _stamps(entry: ShelfEntry) -> Stamps:
    return tuple(stamp(entry.path / name) for name in sorted(entry.files))
