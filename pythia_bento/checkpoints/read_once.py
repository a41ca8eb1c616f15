"""An entry of a shelf, out of files that are read once."""

from __future__ import annotations

from pythia_bento.checkpoints.held_files import JOBS, ReadOnce
from pythia_bento.checkpoints.shelf_entry import ShelfEntry


def open_entry(entry: ShelfEntry, jobs: int = JOBS) -> ReadOnce:
    """The weights and the tokenizer of an entry, out of files that are those recorded.

    ``jobs`` files are read at a time. Raises CheckpointError, which names the entry and the file,
    and MemoryError.
    """
    return ReadOnce(entry.name, entry.path, entry.files, entry.config, jobs)
