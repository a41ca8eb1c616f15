"""When what happened on the way of one checkpoint from the disk to its first token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pythia_bento.checkpoints.arriving import Arrival, Folder
from pythia_bento.checkpoints.held_files import ReadOnce
from pythia_bento.engine.moves import Moves
from pythia_bento.model.kernels.gpu.slab import Filling
from pythia_bento.runtime.opener import Opener

PLACES: tuple[tuple[Any, str, str], ...] = (
    (Opener, "load", "load"),
    (Folder, "__init__", "folder"),
    (Arrival, "_read_ends", "ends"),
    (Arrival, "_copy", "read"),
    (Arrival, "_finish", "compared"),
    (ReadOnce, "_begin", "begun"),
    (ReadOnce, "_part", "got"),
    (ReadOnce, "verify", "verified"),
    (Filling, "__init__", "slab"),
    (Filling, "place", "placed"),
    (Moves, "arrive", "arrived"),
)


class Trace:
    """Beginnings and ends of what is in ``PLACES``, in milliseconds since ``start``."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self._found: list[tuple[str, str, float, float]] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        """Note what is called meanwhile, in any thread."""
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in PLACES]
        for owner, name, told in PLACES:
            setattr(owner, name, self._noting(getattr(owner, name), told))
        try:
            yield
        finally:
            for owner, name, inner in before:
                setattr(owner, name, inner)

    def _noting(self, inner: Callable[..., Any], told: str) -> Callable[..., Any]:
        def noting(owner: Any, *args: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return inner(owner, *args, **named)
            finally:
                what = getattr(owner, "_name", "") or str(args[0] if args else "")
                self._found.append((told, what.partition("-of")[0], begin, time.perf_counter()))

        return noting

    def _ms(self, at: float) -> float:
        return round((at - self.start) * 1e3, 1)

    def row(self) -> dict[str, Any]:
        """The ends of each stage; of files and parts [name, begin, end]."""
        by_stage: dict[str, list[tuple[str, float, float]]] = {}
        for told, what, begin, end in self._found:
            by_stage.setdefault(told, []).append((what, self._ms(begin), self._ms(end)))
        row: dict[str, Any] = {"first_token_ms": self._ms(time.perf_counter())}
        for told in ("load", "folder", "begun", "slab", "verified", "arrived"):
            row[told] = [one[1:] for one in by_stage.get(told, [])]
        for told in ("ends", "read", "compared", "got", "placed"):
            row[told] = sorted(by_stage.get(told, []), key=lambda one: one[1])
        if row["read"]:
            row["first_byte_ms"] = min(one[1] for one in row["ends"])
            row["last_byte_ms"] = max(one[2] for one in row["read"])
            row["last_hash_ms"] = max(one[2] for one in row["compared"])
            row["last_part_ms"] = max(one[2] for one in row["placed"] or row["got"])
        return row
