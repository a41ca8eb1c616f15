"""Checkpoints whose tokenizers mean the same share one: it takes tens of megabytes to make."""

from __future__ import annotations

import hashlib
import threading

from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.checkpoints.strict import read_bytes
from pythia_bento.checkpoints.tokenizer_file import check_tokenizer_bytes, tokenizer_meaning
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.errors import CheckpointError

NAME = "tokenizer.json"


class Tokenizers:
    """Made when they are first asked for. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, Tokenizer] = {}  # by meaning
        self._known: dict[str, Tokenizer] = {}  # by the hash of their file

    def know(self, entry: ShelfEntry | None, tokenizer: Tokenizer) -> None:
        """This one is an entry's."""
        if entry is not None and NAME in entry.files:
            self._known[entry.files[NAME]] = tokenizer

    def of(self, entry: ShelfEntry, data: bytes | None = None) -> Tokenizer:
        """That of an entry, by its file or by ``data``, which was compared with what was recorded.

        Raises CheckpointError for a file that is missing or changed, or no tokenizer of Pythia's.
        """
        digest, path = entry.files.get(NAME, entry.weights), entry.path / NAME
        with self._lock:
            if digest not in self._known:
                if data is None:
                    data = read_bytes(path)
                    if hashlib.sha256(data).hexdigest() != digest:
                        raise CheckpointError(
                            f"{entry.name} will not be served: {NAME} was changed"
                        )
                check_tokenizer_bytes(data, path, entry.config)
                meaning = tokenizer_meaning(data, path)
                if meaning not in self._made:
                    self._made[meaning] = Tokenizer.from_bytes(data, path)
                self._known[digest] = self._made[meaning]
            return self._known[digest]
