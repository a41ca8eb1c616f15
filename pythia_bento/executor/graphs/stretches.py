"""Passes, and stretches of them, as graphs that are captured when they are wanted again."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

logger = logging.getLogger(__name__)

MOST_GRAPHS = 256
MOST_SEEN = 4096


class CapturedStretches:
    """By sizes of the pass, and both ends where it is no whole one.

    A request asks for the same stretches in every step, another one perhaps for others: nobody
    knows them before. Nor does everybody need the largest passes. One that is wanted for the first
    time is launched as it is, which compiles it, the second time it is captured. Those used longest
    ago are dropped first.
    """

    def __init__(self, pool: Any, most: int = MOST_GRAPHS) -> None:
        self._pool, self._most = pool, most
        self._graphs: OrderedDict[Hashable, torch.cuda.CUDAGraph] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(self, key: Hashable, launches: Callable[[], None]) -> None:
        """Queue ``launches``, which are the same whenever they have the same ``key``."""
        graph = self._graphs.get(key)
        if graph is None and self._is_known(key):
            graph = self._capture(key, launches)
        if graph is None:
            launches()
            return
        self._graphs.move_to_end(key)
        graph.replay()

    def _is_known(self, key: Hashable) -> bool:
        """Whether it was wanted before."""
        is_known = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)
        return is_known and self._most > 0

    def _capture(self, key: Hashable, launches: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """None where that fails, as for want of memory: then it is not tried again."""
        if len(self._graphs) >= self._most:
            torch.cuda.synchronize()  # the one that goes may be running
            self._graphs.popitem(last=False)
        try:
            self._graphs[key] = graph = _captured(launches, self._stream, self._pool)
        except RuntimeError as error:
            logger.warning("large passes and those with taps are not captured any more: %s", error)
            self._most = 0
            return None
        return graph


def _captured(
    launches: Callable[[], None], stream: torch.cuda.Stream, pool: Any
) -> torch.cuda.CUDAGraph:
    """A graph of launches that were made before. Unlike ``capture`` it waits for nothing."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        graph.capture_begin(pool, "thread_local")  # see ``capture``
        try:
            launches()
        finally:
            graph.capture_end()
    return graph
