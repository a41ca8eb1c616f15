"""The engine's numbers once more under the names of another server (``PYTHIA_METRICS_PREFIX``).

Dashboards, autoscalers and gateways that were made for vLLM ask for ``vllm:...`` with the labels
``model_name`` and ``engine``. Only what means the same there has such a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric

_OWN = "pythia_"
# A family of ours, without the prefix, and what vLLM called it before.
NAMES: dict[str, tuple[str, ...]] = {
    "num_requests_running": (),
    "num_requests_waiting": (),
    "kv_cache_usage_perc": ("gpu_cache_usage_perc",),
    "prompt_tokens": (),
    "generation_tokens": (),
    "prefix_cache_queries": (),
    "prefix_cache_hits": (),
    "num_preemptions": (),
    "corrupted_requests": (),
    "spec_decode_num_drafts": (),
    "spec_decode_num_draft_tokens": (),
    "spec_decode_num_accepted_tokens": (),
    "request_success": (),
    "time_to_first_token_seconds": (),
    "inter_token_latency_seconds": ("time_per_output_token_seconds",),
    "e2e_request_latency_seconds": (),
    "request_queue_time_seconds": (),
    "request_prefill_time_seconds": (),
    "request_decode_time_seconds": (),
}


def aliases(families: Iterable[Metric], prefix: str, model: str) -> Iterator[Metric]:
    """Of ``families``, those in NAMES, with ``prefix`` in place of ours; ``model`` is served."""
    labels = {"model_name": model, "engine": "0"}  # there is one engine
    for family in families:
        name = family.name.removeprefix(_OWN)
        for alias in (name, *NAMES[name]) if name in NAMES else ():
            yield _renamed(family, prefix + alias, labels)


def _renamed(family: Metric, name: str, labels: dict[str, str]) -> Metric:
    renamed = Metric(name, family.documentation, family.type)
    for sample in family.samples:
        end = sample.name.removeprefix(family.name)  # as _total, _bucket
        renamed.add_sample(name + end, labels | sample.labels, sample.value)
    return renamed
