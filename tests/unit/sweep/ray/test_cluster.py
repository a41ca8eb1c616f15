"""What machines have, and what an actor takes of them, without Ray."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from pythia_bento.errors import PythiaError
from pythia_bento.sweep.ray.actor import OnDisk
from pythia_bento.sweep.ray.cluster import Machines, Share, connected, shares_of
from pythia_bento.sweep.source import Facts


def node(id: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": id, "Alive": alive, "Resources": resources}


def test_processors_are_shared_out_where_there_are_no_gpus() -> None:
    nodes = [node("b", CPU=5.0), node("a", CPU=2.0), node("head", CPU=0.0), node("c", False, CPU=9)]
    assert shares_of(nodes, 2.0) == {"a": Share(0, 2.0, 1), "b": Share(0, 2.0, 2)}
    assert list(shares_of(nodes, 2.0)) == ["a", "b"]


def test_where_there_are_gpus_they_compute_alone() -> None:
    nodes = [node("a", CPU=64.0), node("b", CPU=8.0, GPU=4.0)]
    found = shares_of(nodes)
    assert found == {"b": Share(1.0, 0, 4)}
    assert found["b"].options == {"num_gpus": 1.0, "num_cpus": 0}


def test_a_cluster_without_room_is_refused() -> None:
    with pytest.raises(PythiaError, match="no machine of the cluster has a GPU, or 4 processors"):
        shares_of([node("a", CPU=2.0)], 4.0)


def facts(weights: str) -> Facts:
    return Facts(1, None, weights, "")


def machines(*found: OnDisk) -> Machines:
    by_node = {f"node{place}": one for place, one in enumerate(found)}
    return Machines(None, dict.fromkeys(by_node, Share(0, 1, 1)), by_node)


def test_what_any_machine_has_can_be_asked_for() -> None:
    found = machines(
        OnDisk({"m": {1, 2}}, {"m@step1": facts("x"), "m@step2": facts("y")}, {}),
        OnDisk({"m": {2, 4}}, {"m@step2": facts("y")}, {"m@step4": "m@step4 is damaged"}),
    )
    assert found.steps("m") == {1, 2, 4}
    assert found.look("m@step2") == facts("y")
    assert found.holders("m@step1") == {"node0"}
    assert found.holders("m@step2") == {"node0", "node1"}
    fault = found.look("m@step4")
    assert isinstance(fault, PythiaError) and fault.message == "m@step4 is damaged"
    missing = found.look("pythia-14m@step8")
    assert isinstance(missing, PythiaError) and "pythia-14m@step8" in missing.message


def test_machines_that_mean_different_weights_are_not_mixed() -> None:
    found = machines(
        OnDisk({"m": {1}}, {"m@step1": facts("x")}, {}),
        OnDisk({"m": {1}}, {"m@step1": facts("z")}, {}),
    ).look("m@step1")
    assert isinstance(found, PythiaError)
    assert "has other weights on some machines" in found.message


def test_ray_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(PythiaError, match=r"pip install 'pythia-bento\[ray\]'"),
        connected("auto", ["bundled"]),
    ):
        raise AssertionError
