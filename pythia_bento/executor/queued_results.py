"""What a device finds for some chunks: read at once, or when the engine asks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

from pythia_bento.engine.executor import ChunkResult


class QueuedResults(ABC):
    """On its way to the host."""

    @abstractmethod
    def put_into(self, results: Sequence[ChunkResult]) -> None:
        """Wait; fill in the results of those chunks, in their order."""

    @property
    def is_pending(self) -> bool:
        """Whether there is a device to wait for."""
        return True

    def deliver(self, results: Sequence[ChunkResult], *, later: bool) -> None:
        """Fill the results in: now, or when the engine has handed over the next step.

        Where there is no device to wait for, now is never too early.
        """
        if not (later and self.is_pending):
            self.put_into(results)
            return
        complete = partial(self._complete, results)
        for result in results:
            result.complete = complete

    def _complete(self, results: Sequence[ChunkResult]) -> None:
        for result in results:
            result.complete = None
        self.put_into(results)
