"""Checkpoints with the same vocabulary share a tokenizer: one takes 30 MB and half a second."""

from __future__ import annotations

import threading

from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.tokenizer import Tokenizer

NAME = "tokenizer.json"


class Tokenizers:
    """Made when they are first asked for. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, Tokenizer] = {}  # by the hash of their file

    def know(self, entry: ShelfEntry | None, tokenizer: Tokenizer) -> None:
        """This one is an entry's."""
        if entry is not None and NAME in entry.files:
            self._made[entry.files[NAME]] = tokenizer

    def of(self, entry: ShelfEntry) -> Tokenizer:
        """Raises CheckpointError."""
        with self._lock:
            key = entry.files.get(NAME, entry.weights)
            if key not in self._made:
                self._made[key] = Tokenizer.from_file(entry.path / NAME)
            return self._made[key]
