"""The engine's numbers in Prometheus' text format, for BentoML's ``/metrics`` page.

docs/observability.md lists every family; a test compares it with the page.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest

from pythia_bento.engine.stats import BATCH_SIZES, LOAD_SECONDS, EngineStats, GroupStats
from pythia_bento.runtime.arena import Arena
from pythia_bento.runtime.model_info import ModelInfo
from pythia_bento.runtime.pool.place import ReplicaState
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.metric_aliases import aliases
from pythia_bento.telemetry.histogram import cumulative
from pythia_bento.telemetry.request_timings import RequestWatch

GAUGES = {
    "num_requests_running": ("running", "Sequences in the current step."),
    "num_requests_waiting": ("waiting", "Sequences that wait for a place or for blocks."),
    "kv_blocks_used": ("blocks_used", "KV blocks held by sequences."),
    "kv_blocks": ("blocks_total", "KV blocks there are."),
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
    "spec_decode_num_drafts": ("drafts", "Steps of sequences that had drafted tokens."),
    "spec_decode_num_draft_tokens": ("draft_tokens", "Drafted tokens."),
    "spec_decode_num_accepted_tokens": ("accepted_tokens", "Drafted tokens that were chosen."),
}
# No label names a checkpoint: there may be thousands, and callers choose them.
STATES = {"device": "on_device", "host": "on_host", "loading": "loading", "failed": "failed"}
SOURCES = ("disk", "host")
EVICTIONS = {"device": "evictions", "host": "host_evictions"}
# Of one engine of PYTHIA_DEVICES; a label names its device.
REPLICA_GAUGES = {
    "num_requests_running": ("running", "Sequences in its current step."),
    "num_requests_waiting": ("waiting", "Sequences that wait there for a place or for blocks."),
    "kv_blocks_used": ("blocks_used", "KV blocks held by its sequences."),
    "kv_blocks": ("blocks_total", "KV blocks it has."),
    "checkpoints": ("on_device", "Checkpoints on its device."),
}
HISTOGRAMS = {
    "time_to_first_token_seconds": "From a request's arrival to its first token.",
    "inter_token_latency_seconds": "Between the tokens of a sequence, for each but the first.",
    "e2e_request_latency_seconds": "From a request's arrival to its last token.",
    "request_queue_time_seconds": "From a request's arrival to its first step.",
    "request_prefill_time_seconds": "From a request's first step to its first token.",
    "request_decode_time_seconds": "From a request's first token to its last one.",
}


class _Families:
    """What prometheus_client needs of a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def engine_metrics(runner: PythiaRunner, prefix: str | None = None) -> str:
    """One family for each of the engine's numbers, named ``pythia_...``.

    With a ``prefix`` those that vLLM has too are there a second time, under its names.
    """
    stats, watch, info = runner.stats(), runner.watch, runner.info
    families = [
        *_numbers(stats),
        *_captures(runner.arena),
        *_requests(watch),
        _batch_size(stats),
        *_checkpoints(stats.group, runner.models.on_disk),
        _model(info),
        *_replicas(runner.replicas, runner.repeats),
    ]
    return rendered([*families, *aliases(families, prefix, info.id)] if prefix else families)


def loop_metrics(pause: float, work: float) -> str:
    """How long the event loop that answers has stood still, and worked so, at most, in seconds."""
    texts = {
        "pause": ("Longest pause of the event loop since the server was ready.", pause),
        "work": ("Most processor time that the event loop took in a pause.", work),
    }
    return rendered(
        GaugeMetricFamily(f"pythia_event_loop_longest_{name}_seconds", text, value=value)
        for name, (text, value) in texts.items()
    )


def rendered(families: Iterable[Metric]) -> str:
    """As lines of a metrics page."""
    return generate_latest(_Families(families)).decode()


def _numbers(stats: EngineStats) -> Iterable[Metric]:
    for name, (field, text) in GAUGES.items():
        yield GaugeMetricFamily(f"pythia_{name}", text, value=getattr(stats, field))
    for name, (field, text) in COUNTERS.items():
        yield CounterMetricFamily(f"pythia_{name}", text, value=getattr(stats, field))
    usage = stats.blocks_used / max(stats.blocks_total, 1)
    text = "Share of the KV blocks that sequences hold; 1 is all."
    yield GaugeMetricFamily("pythia_kv_cache_usage_perc", text, value=usage)


def _captures(arena: Arena | None) -> Iterable[Metric]:
    used, total = (arena.used, len(arena.memory)) if arena is not None else (0, 0)
    text = "Bytes that captures of a model's inside hold."
    yield GaugeMetricFamily("pythia_capture_bytes_used", text, value=used)
    text = "Bytes that captures of a model's inside can hold."
    yield GaugeMetricFamily("pythia_capture_bytes", text, value=total)


def _requests(watch: RequestWatch) -> Iterable[Metric]:
    ended = CounterMetricFamily(
        "pythia_request_success", "Sequences that ended, by why.", labels=["finished_reason"]
    )
    for reason, count in watch.ended.items():
        ended.add_metric([reason], count)
    yield ended
    for name, text in HISTOGRAMS.items():
        found = watch.histograms[name]
        buckets = cumulative(found.bounds, found.counts)
        yield HistogramMetricFamily(f"pythia_{name}", text, buckets, found.sum)


def _batch_size(stats: EngineStats) -> Metric:
    buckets = cumulative(BATCH_SIZES, stats.batch_sizes)
    text = "Sequences in a step."
    return HistogramMetricFamily("pythia_batch_size", text, buckets, stats.step_sequences)


def _checkpoints(group: GroupStats, on_disk: int) -> Iterable[Metric]:
    """Of all that are served. A server of one has the same, so that none is ever missing."""
    states = GaugeMetricFamily("pythia_checkpoints", "Checkpoints, by state.", labels=["state"])
    for state, field in STATES.items():
        states.add_metric([state], getattr(group, field))
    states.add_metric(["disk"], on_disk)
    yield states
    yield from _loads(group)
    left = CounterMetricFamily(
        "pythia_checkpoint_evictions",
        "Checkpoints that left the device, or the host's memory for the disk.",
        labels=["from"],
    )
    for place, field in EVICTIONS.items():
        left.add_metric([place], getattr(group, field))
    yield left
    text = "Changes of the checkpoint that computes."
    yield CounterMetricFamily("pythia_turns", text, value=group.changes)
    text = "Time of the host that changes of the checkpoint took."
    spent = group.switch_microseconds / 1e6
    yield CounterMetricFamily("pythia_switch_seconds", text, value=spent)


def _loads(group: GroupStats) -> Iterable[Metric]:
    loads = CounterMetricFamily(
        "pythia_checkpoint_loads",
        "Checkpoints brought to the device, by where from and whether it went well.",
        labels=["from", "result"],
    )
    seconds = HistogramMetricFamily(
        "pythia_checkpoint_load_seconds",
        "From the beginning of a load that went well to its end.",
        labels=["from"],
    )
    for source in SOURCES:
        counts = getattr(group, f"load_times_{source}")
        loads.add_metric([source, "ok"], getattr(group, f"loads_{source}"))
        spent = getattr(group, f"load_microseconds_{source}") / 1e6
        seconds.add_metric([source], cumulative(LOAD_SECONDS, counts), spent)
    loads.add_metric(["disk", "error"], group.failed_loads)
    yield loads
    yield seconds


def _replicas(replicas: Iterable[ReplicaState], repeats: int) -> Iterable[Metric]:
    up = GaugeMetricFamily("pythia_replica_up", "Whether an engine answers.", labels=["device"])
    ends = CounterMetricFamily(
        "pythia_replica_ends", "Engines that ended, by how.", labels=["device", "reason"]
    )
    starts = CounterMetricFamily(
        "pythia_replica_restarts", "Engines that were started anew.", labels=["device"]
    )
    gauges = {
        field: GaugeMetricFamily(f"pythia_replica_{name}", text, labels=["device"])
        for name, (field, text) in REPLICA_GAUGES.items()
    }
    for one in replicas:
        up.add_metric([one.device], one.is_up)
        starts.add_metric([one.device], one.restarts)
        for reason in ("died", "hung"):
            ends.add_metric([one.device, reason], getattr(one, reason))
        for field, gauge in gauges.items():
            source = one.stats.group if field == "on_device" else one.stats
            gauge.add_metric([one.device], getattr(source, field))
    text = "Requests that were asked once more, as the engine that had them ended."
    yield from (up, *gauges.values(), ends, starts)
    yield CounterMetricFamily("pythia_repeated_requests", text, value=repeats)


def _model(info: ModelInfo) -> Metric:
    origin = info.provenance
    labels = {
        "model": info.id,
        "commit": (origin and origin.commit) or "",
        "quantization": origin.quantization if origin else "",
        "matmul": origin.matmul if origin else "",
        "backend": origin.backend if origin else "",
        "version": origin.version if origin else "",
    }
    family = GaugeMetricFamily(
        "pythia_model_info", "The default checkpoint; always 1.", labels=list(labels)
    )
    family.add_metric(list(labels.values()), 1)
    return family
