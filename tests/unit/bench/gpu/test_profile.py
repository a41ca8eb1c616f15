from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.gpu import profile
from bench.gpu.profile import READ, REPLAY, busy_share, check, summarise
from pythia_bento.engine.executor import ChunkResult
from pythia_bento.executor.flights import StepsInFlight, tokens_found


def event(name: str, start: float, end: float, cat: str = "cuda_runtime") -> dict[str, Any]:
    return {"name": name, "cat": cat, "ts": start, "dur": end - start}


def visit(*more: dict[str, Any]) -> list[dict[str, Any]]:
    """One visit: two graphs and a copy queued, then the tokens waited for."""
    return [
        event(REPLAY, 0, 100, "user_annotation"),
        event(REPLAY, 150, 400, "gpu_user_annotation"),  # the same span on the device
        event("cudaGraphLaunch", 10, 20),
        event("cudaGraphLaunch", 30, 40),
        event("cudaMemcpyAsync", 50, 60),
        event("cudaEventRecordWithFlags", 61, 62),
        event(READ, 200, 300, "user_annotation"),
        event("cudaEventSynchronize", 210, 290),
        event("cudaDeviceSynchronize", 500, 600),
        event("product", 100, 150, "kernel"),
        event("norm", 150, 170, "kernel"),
        event("Memcpy DtoH (Device -> Pinned)", 190, 200, "gpu_memcpy"),
        *more,
    ]


def test_a_good_visit_waits_for_its_tokens_alone() -> None:
    found = summarise(visit())
    assert found["replays"] == 1
    assert found["graph_launches"] == 2
    assert (found["kernels"], found["memcpy"], found["memset"]) == (2, 1, 0)
    assert found["waits_in_replay"] == {}
    assert found["waits_for_tokens"] == {"cudaEventSynchronize": 1}
    assert found["waits_elsewhere"] == {"cudaDeviceSynchronize": 1}
    assert found["allocations_in_replay"] == {}
    assert found["gpu_busy_share"] == 0.8
    check({"batch": 1, **found})


@pytest.mark.parametrize("name", sorted(profile.WAITS))
def test_a_wait_inside_a_replay_is_found(name: str) -> None:
    assert summarise(visit(event(name, 45, 48)))["waits_in_replay"] == {name: 1}


def test_allocations_and_plain_launches_inside_a_replay_are_found() -> None:
    found = summarise(visit(event("cudaMalloc", 5, 6), event("cudaLaunchKernel", 7, 8)))
    assert found["allocations_in_replay"] == {"cudaMalloc": 1}
    assert found["kernel_launches_in_replay"] == 1


def test_a_blind_profile_proves_nothing() -> None:
    blind = summarise([event(REPLAY, 0, 100, "user_annotation")])
    with pytest.raises(RuntimeError, match="no graphs"):
        check({"batch": 8, **blind})
    no_wait = summarise([e for e in visit() if e["name"] != "cudaEventSynchronize"])
    with pytest.raises(RuntimeError, match="wait for tokens"):
        check({"batch": 8, **no_wait})


@pytest.mark.parametrize(
    "name", ["cudaGraphLaunch", "cudaGraphLaunch_v10000", "cudaGraphLaunch_ptsz_v10000"]
)
def test_names_lose_their_versions(name: str) -> None:
    assert profile.plain(name) == "cudaGraphLaunch"
    assert profile.plain("a_kernel_of_ours") == "a_kernel_of_ours"


def test_busy_share_counts_overlaps_once() -> None:
    assert busy_share([(0, 4), (2, 6), (8, 10)]) == 0.8
    assert busy_share([]) == 0.0


def test_watched_calls_are_in_the_trace() -> None:
    flight = StepsInFlight([], 1, lambda: [tokens_found([7])], None, [])
    lookahead = SimpleNamespace(
        device=SimpleNamespace(start=lambda chunks, steps: flight, extend=lambda flight, n: flight)
    )
    profile.watch(lookahead)
    read: list[list[ChunkResult]] = []
    events = profile._record(lambda: read.append(lookahead.device.start([], 1).results()))
    assert read == [[tokens_found([7])]]
    assert [e["name"] for e in events if e["name"] in (REPLAY, READ)] == [REPLAY, READ]
