"""What the allocators and the system raise when there is no memory."""

from __future__ import annotations

import torch

# What torch's allocators write in a plain RuntimeError, and the system in an OSError.
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocator failed, whichever it was."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in WORDS)
