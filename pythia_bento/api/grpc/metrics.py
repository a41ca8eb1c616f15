"""Numbers about calls, in Prometheus' text format; one of these for each server."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from pythia_bento.api.metrics import rendered

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
LABELS = ("method",)


class GrpcMetrics:
    """Calls by method and code, how long they took, and how many are open. For one thread."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._ended: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._buckets: dict[str, list[int]] = {}

    def begin(self, method: str) -> None:
        """A call came in."""
        self._open[method] += 1

    def end(self, method: str, code: str, seconds: float) -> None:
        """It ended."""
        self._open[method] -= 1
        self._ended[method, code] += 1
        self._seconds[method] += seconds
        buckets = self._buckets.setdefault(method, [0] * (len(BUCKETS) + 1))
        buckets[bisect_left(BUCKETS, seconds)] += 1

    def text(self) -> str:
        """Families named ``pythia_grpc_...``."""
        open = GaugeMetricFamily("pythia_grpc_open_calls", "Calls being answered.", labels=LABELS)
        for method, count in self._open.items():
            open.add_metric([method], count)
        ended = CounterMetricFamily(
            "pythia_grpc_calls", "Calls answered.", labels=[*LABELS, "code"]
        )
        for (method, code), count in self._ended.items():
            ended.add_metric([method, code], count)
        seconds = HistogramMetricFamily(
            "pythia_grpc_call_seconds", "Seconds from a call's arrival to its end.", labels=LABELS
        )
        for method, counts in self._buckets.items():
            bounds = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            seconds.add_metric([method], buckets, self._seconds[method])
        return rendered([open, ended, seconds])
