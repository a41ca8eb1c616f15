"""Stands here until files are read once."""

from __future__ import annotations

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.errors import CheckpointError
from pythia_bento.model.weights import WeightSource


def open_entry(entry: ShelfEntry) -> WeightSource:
    """The weights of an entry, out of files that are those recorded; raises CheckpointError."""
    checkpoint = load_checkpoint(str(entry.path))
    for name, digest in entry.files.items():
        if checkpoint.files.get(name) != digest:
            raise CheckpointError(f"{entry.name} will not be served: {name} was changed")
    return checkpoint.source
