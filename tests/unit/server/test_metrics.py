from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from pythia_bento.errors import CheckpointError, NonFiniteLogits
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.metric_aliases import NAMES
from pythia_bento.server.metrics import engine_metrics, loop_metrics
from tests.promtool import check_metrics
from tests.unit.engine.gate import Gate
from tests.unit.runtime.toy_runner import POISON, ask, settled, toy_runner
from tests.unit.runtime.toy_shelf import BROKEN, toy_shelf

DOCUMENT = (Path(__file__).parents[3] / "docs" / "observability.md").read_text()


def values(runner: PythiaRunner) -> dict[str, float]:
    """Samples of the page, by name and labels as the page writes them."""
    lines = engine_metrics(runner).splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    assert len(dict(samples)) == len(samples)
    return {name: float(value) for name, value in samples}


def test_what_requests_leave_behind(runner: PythiaRunner) -> None:
    runner.complete_sync([ask((1, 2, 3, 4, 5), n=2, max_tokens=4)])
    [[answer]] = runner.complete_sync([ask((POISON, 2))])
    assert isinstance(answer.error, NonFiniteLogits)
    settled(runner)
    found = values(runner)
    assert found['pythia_request_success_total{finished_reason="length"}'] == 2
    assert found['pythia_request_success_total{finished_reason="error"}'] == 1
    assert found["pythia_corrupted_requests_total"] == 1
    assert found["pythia_generation_tokens_total"] == 8
    assert found["pythia_prompt_tokens_total"] == 7
    assert found["pythia_inter_token_latency_seconds_count"] == 6
    for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds"):
        assert found[f"pythia_{name}_count"] == found[f'pythia_{name}_bucket{{le="+Inf"}}'] == 1
    queue, prefill, decode, total = (
        found[f"pythia_{name}_seconds_sum"]
        for name in (
            *("request_queue_time", "request_prefill_time", "request_decode_time"),
            "e2e_request_latency",
        )
    )
    assert queue + prefill + decode == pytest.approx(total)
    assert found["pythia_batch_size_count"] == found["pythia_steps_total"]
    info = 'model="toy@step3"'
    assert [v for name, v in found.items() if name.startswith("pythia_model_info") and info in name]


async def test_checkpoints_come_and_go() -> None:
    with toy_shelf(fault=CheckpointError("a.bin was changed")) as runner:
        for name in ("toy@step1", "toy@step2", "toy@step1", BROKEN):
            await (await runner.served(name)).complete([ask()])
        settled(runner)
        found = values(runner)
    assert {name: found[f"pythia_{name}"] for name in CHECKPOINTS} == CHECKPOINTS
    assert found["pythia_turns_total"] >= 2
    assert found["pythia_switch_seconds_total"] > 0
    assert found['pythia_checkpoint_load_seconds_sum{from="disk"}'] > 0
    assert not any("toy@step1" in name for name in found)


CHECKPOINTS = {
    'checkpoints{state="device"}': 1,  # the default: the one that failed had the other's place
    'checkpoints{state="host"}': 0,
    'checkpoints{state="loading"}': 0,
    'checkpoints{state="failed"}': 1,
    'checkpoints{state="disk"}': 4,
    'checkpoint_loads_total{from="disk",result="ok"}': 3,
    'checkpoint_loads_total{from="disk",result="error"}': 1,
    'checkpoint_loads_total{from="host",result="ok"}': 0,
    'checkpoint_load_seconds_count{from="disk"}': 3,
    'checkpoint_load_seconds_bucket{from="disk",le="+Inf"}': 3,
    'checkpoint_load_seconds_count{from="host"}': 0,
    'checkpoint_evictions_total{from="device"}': 3,
    'checkpoint_evictions_total{from="host"}': 0,
}


def test_of_one_checkpoint_all_is_there_too(runner: PythiaRunner) -> None:
    found = values(runner)
    counts = {name: found[f"pythia_{name}"] for name in (*CHECKPOINTS, "turns_total")}
    assert counts == dict.fromkeys(counts, 0) | {'checkpoints{state="device"}': 1}


def test_share_of_the_cache() -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        stream = runner.submit_sync([ask(max_tokens=50)])
        gate.open(2)
        next(stream)
        found = values(runner)
        stream.close()
    used, there_are = found["pythia_kv_blocks_used"], found["pythia_kv_blocks"]
    assert 0 < used < there_are
    assert found["pythia_kv_cache_usage_perc"] == used / there_are


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_page(runner: PythiaRunner) -> None:
    runner.complete_sync([ask()])
    check_metrics(engine_metrics(runner) + loop_metrics(0.5, 0.25))


@pytest.mark.needs("promtool")
def test_what_vllm_counts_too_has_its_names(runner: PythiaRunner) -> None:
    runner.complete_sync([ask((1, 2, 3), n=2, max_tokens=4)])
    settled(runner)
    page = engine_metrics(runner, "vllm:")
    served = {family.name: family for family in text_string_to_metric_families(page)}
    theirs = {name.removeprefix("vllm:") for name in served if name.startswith("vllm:")}
    assert theirs == {name for ours, older in NAMES.items() for name in (ours, *older)}
    for ours, older in NAMES.items():
        assert f"pythia_{ours}" in served, ours
        for name in (ours, *older):
            assert samples(served[f"vllm:{name}"]) == samples(served[f"pythia_{ours}"])
    # Of the colon, which is vLLM's, Prometheus' linter thinks that it is for recording rules.
    check_metrics(page.replace("vllm:", "vllm_"))


def samples(family: Metric) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
    """Those of an alias must have its two labels, which are left out; names without prefix."""
    found = set()
    for sample in family.samples:
        labels = dict(sample.labels)
        if family.name.startswith("vllm:"):
            assert (labels.pop("model_name"), labels.pop("engine")) == ("toy@step3", "0")
        name = sample.name.removeprefix(family.name)
        found.add((name, tuple(sorted(labels.items())), sample.value))
    assert found
    return found


@pytest.mark.needs("promtool")
def test_prometheus_would_not_take_any_page() -> None:
    with pytest.raises(AssertionError, match="_total"):
        check_metrics("# HELP pythia_steps Steps.\n# TYPE pythia_steps counter\npythia_steps 1\n")


def test_the_document_has_what_the_page_has(runner: PythiaRunner) -> None:
    rows = re.findall(r"^\| `(pythia_\w+?)(?:\{([\w,]+)\})?` \| (\w+) \|", DOCUMENT, re.MULTILINE)
    documented = {
        (name.removesuffix("_total"), kind, frozenset(labels.split(",")) - {""})
        for name, labels, kind in rows
        if not name.startswith("pythia_grpc_")
    }
    runner.complete_sync([ask()])
    page = engine_metrics(runner) + loop_metrics(0.5, 0.25)
    families = text_string_to_metric_families(page)
    served = {(f.name, f.type, frozenset(f.samples[0].labels) - {"le"}) for f in families}
    assert served == documented
