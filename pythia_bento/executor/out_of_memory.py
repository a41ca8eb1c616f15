"""What the allocators raise when a device has no memory, as one kind of error."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

# What torch's allocators write in a plain RuntimeError.
WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def memory_errors(step: Callable[P, R]) -> Callable[P, R]:
    """``step`` that raises MemoryError, with the allocator's words, whichever allocator failed."""

    @wraps(step)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return step(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error)[:200] or type(error).__name__
        # Only here are the failed step's tensors gone: the first error held them.
        raise MemoryError(failure)

    return checked


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocator failed, whichever it was."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in WORDS)
