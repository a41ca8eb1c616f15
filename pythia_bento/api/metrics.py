"""The engine's numbers in Prometheus' text format, for BentoML's ``/metrics`` page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from pythia_bento.engine.engine import EngineStats

GAUGES = {
    "num_requests_running": ("running", "Sequences in the current step."),
    "num_requests_waiting": ("waiting", "Sequences that wait for a place or for blocks."),
    "kv_blocks_used": ("blocks_used", "KV blocks held by sequences."),
    "kv_blocks_total": ("blocks_total", "KV blocks there are."),
    "kv_blocks_cached": ("blocks_cached", "KV blocks readable through the prefix cache."),
}
COUNTERS = {
    "steps": ("steps", "Forward passes."),
    "prompt_tokens": ("prompt_tokens", "Prompt tokens of admitted requests."),
    "generation_tokens": ("generation_tokens", "Generated tokens."),
    "prefix_cache_queries": ("prefix_queries", "Prompt tokens looked up in the prefix cache."),
    "prefix_cache_hits": ("prefix_hits", "Prompt tokens found in the prefix cache."),
    "num_preemptions": ("preemptions", "Sequences that gave their blocks back for a while."),
    "corrupted_requests": ("non_finite", "Sequences that ended by non-finite logits."),
}


class _Families:
    """What prometheus_client needs of a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def engine_metrics(stats: EngineStats) -> str:
    """One family for each of the engine's numbers, named ``pythia_...``."""
    families: list[Metric] = [
        GaugeMetricFamily(f"pythia_{name}", text, value=getattr(stats, field))
        for name, (field, text) in GAUGES.items()
    ]
    families += [
        CounterMetricFamily(f"pythia_{name}", text, value=getattr(stats, field))
        for name, (field, text) in COUNTERS.items()
    ]
    return rendered(families)


def rendered(families: list[Metric]) -> str:
    """As lines of a metrics page."""
    return generate_latest(_Families(families)).decode()
