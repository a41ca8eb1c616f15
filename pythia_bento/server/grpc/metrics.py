"""Numbers about calls, in Prometheus' text format; one of these for each server."""

from __future__ import annotations

from collections import Counter, defaultdict

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from pythia_bento.server.metrics import rendered
from pythia_bento.telemetry.histogram import Histogram, cumulative

LABELS = ("method",)


class GrpcMetrics:
    """Calls by method and code, how long they took, and how many are open. For one thread."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._ended: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[str, Histogram] = defaultdict(Histogram)

    def begin(self, method: str) -> None:
        """A call came in."""
        self._open[method] += 1

    def end(self, method: str, code: str, seconds: float) -> None:
        """It ended."""
        self._open[method] -= 1
        self._ended[method, code] += 1
        self._seconds[method].observe(seconds)

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
        for method, found in self._seconds.items():
            buckets = cumulative(found.bounds, found.counts)
            seconds.add_metric([method], buckets, found.sum)
        return rendered([open, ended, seconds])
