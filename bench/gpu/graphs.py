"""Times of what is launched, without the host's part: replays of a captured graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def graph_us(call: Callable[[], Any], repeats: int = 9) -> float:
    """Median microseconds of a replay of everything that ``call`` launches."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000)
    return sorted(times)[len(times) // 2]


def layer_us(call: Callable[[int], Any], layers: int) -> float:
    """Median microseconds of ``call`` of one layer, over replays of a call of each.

    All layers, so that weights come from memory and not from the cache.
    """
    return graph_us(lambda: [call(index) for index in range(layers)]) / layers
