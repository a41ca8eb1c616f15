"""What a sweep tells; see ``protocol.sweep``, which clients have too."""

from __future__ import annotations

from pythia_bento.protocol.sweep import (
    Checkpoint,
    Done,
    End,
    Event,
    Failed,
    Row,
    Seconds,
    Start,
)

__all__ = ["Checkpoint", "Done", "End", "Event", "Failed", "Row", "Seconds", "Start"]
