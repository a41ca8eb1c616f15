"""Ray as it is reached from here, and what its machines have."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pythia_bento.errors import CheckpointError, InvalidRequest, PythiaError, shown
from pythia_bento.sweep.at_hand import AtHand
from pythia_bento.sweep.ray.actor import OnDisk, look
from pythia_bento.sweep.source import Facts

AUTO = "auto"
CPUS = 1.0  # of an actor where no machine has a GPU


@dataclass(frozen=True, slots=True)
class Share:
    """What an actor takes of a machine, and how many fit on it."""

    gpus: float
    cpus: float
    count: int

    @property
    def options(self) -> dict[str, float]:
        """For Ray."""
        return {"num_gpus": self.gpus, "num_cpus": self.cpus}


def shares_of(nodes: Sequence[Mapping[str, Any]], cpus: float = CPUS) -> dict[str, Share]:
    """By node's id: one GPU for each actor where any machine has some, else ``cpus`` processors.

    Raises PythiaError where no machine has room for one.
    """
    there = {str(node["NodeID"]): node["Resources"] for node in nodes if node["Alive"]}
    kind, each = ("GPU", 1.0) if any(one.get("GPU") for one in there.values()) else ("CPU", cpus)
    shares = {id: int(one.get(kind, 0) // each) for id, one in sorted(there.items())}
    found = {
        id: Share(each, 0, count) if kind == "GPU" else Share(0, each, count)
        for id, count in shares.items()
        if count
    }
    if not found:
        raise PythiaError(f"no machine of the cluster has a GPU, or {cpus:g} processors")
    return found


class Machines:
    """What all machines of a cluster have of some models; as ``AtHand``."""

    def __init__(self, ray: Any, shares: Mapping[str, Share], found: Mapping[str, OnDisk]) -> None:
        """``found`` is by the node's id."""
        self.ray, self.shares, self._found = ray, shares, found

    def steps(self, name: str) -> set[int]:
        """Of a bare name: those that any machine has."""
        return set().union(*(one.steps[name] for one in self._found.values()))

    def look(self, id: str) -> Facts | PythiaError:
        """What an id means, on all machines the same."""
        facts = [one.facts[id] for one in self._found.values() if id in one.facts]
        if not facts:
            faults = [one.faults[id] for one in self._found.values() if id in one.faults]
            return CheckpointError(faults[0], param="model") if faults else AtHand().look(id)
        if len({one.weights for one in facts}) > 1:
            message = f"{id} has other weights on some machines of the cluster than on others"
            return CheckpointError(message, param="model")
        return facts[0]

    def holders(self, id: str) -> frozenset[str]:
        """Nodes that have it on their disks."""
        return frozenset(node for node, one in self._found.items() if id in one.facts)


@contextmanager
def connected(address: str, names: Sequence[str], cpus: float = CPUS) -> Iterator[Machines]:
    """A cluster, and what it has of the models ``names``; ``auto`` is that of this machine.

    Raises InvalidRequest where no cluster answers, and PythiaError.
    """
    ray = _ray()
    _connect(ray, address)
    try:
        shares = shares_of(ray.nodes(), cpus)
        yield Machines(ray, shares, _look(ray, shares, names))
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise PythiaError(
            "sweeps over several machines run on Ray, which is not installed; "
            "pip install 'pythia-bento[ray]'"
        ) from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of itself at length
    return ray


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        message = f"--ray {shown(address)}: no cluster answers: {reason}"
        raise InvalidRequest(message, param="ray") from None


def _look(ray: Any, nodes: Iterable[str], names: Sequence[str]) -> dict[str, OnDisk]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0)(look)
    asked = {
        node: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(list(names))
        for node in nodes
    }
    try:
        return {node: ray.get(answer) for node, answer in asked.items()}
    except ray.exceptions.RayError as error:
        raise gave_up(error) from None


def gave_up(error: BaseException) -> PythiaError:
    """What went wrong on the cluster, in its last words."""
    return PythiaError(f"the cluster gave up: {' '.join(str(error).split())[-500:]}")
