"""An entry of a shelf, out of files that are read once."""

from __future__ import annotations

from collections.abc import Callable

from pythia_bento.checkpoints.held_files import JOBS, ReadOnce
from pythia_bento.checkpoints.reader import Bring, there
from pythia_bento.checkpoints.shelf_entry import ShelfEntry


def open_entry(
    entry: ShelfEntry,
    jobs: int = JOBS,
    bring: Bring = there,
    on_read: Callable[[], None] | None = None,
) -> ReadOnce:
    """The weights and the tokenizer of an entry, out of files that are those recorded.

    ``jobs`` files are read at a time; ``bring`` moves matrices elsewhere as they arrive, and
    ``on_read`` is called when nothing is left on the disk. Raises CheckpointError, which names the
    entry and the file, and MemoryError.
    """
    return ReadOnce(entry.name, entry.path, entry.files, entry.config, jobs, bring, on_read)
