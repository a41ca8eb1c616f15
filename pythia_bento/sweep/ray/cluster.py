"""Ray as it is reached from here, and what its machines have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pythia_bento.errors import CheckpointError, InvalidRequest, PythiaError, shown
from pythia_bento.sweep.ray.actor import Probe
from pythia_bento.sweep.source import Facts

LOCAL, AUTO = "local", "auto"


def ray_module() -> Any:
    """Ray with its data; raises PythiaError."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise PythiaError(
            "sweeps over several machines run on Ray, which is not installed; "
            "pip install 'pythia-bento[ray]'"
        ) from None
    return ray


def connect(address: str) -> Any:
    """``auto`` is the cluster that this machine is part of, ``local`` one that begins here.

    Raises PythiaError where there is none.
    """
    ray = ray_module()
    if ray.is_initialized():
        return ray
    try:
        ray.init(None if address == LOCAL else address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidRequest(f"ray {shown(address)}: no cluster answers: {reason}", param="ray") from None
    return ray


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


def share_of(node: Mapping[str, Any], cpus: float) -> Share:
    """One GPU for each actor where the machine has some, else ``cpus`` of its processors."""
    there: Mapping[str, float] = node["Resources"]
    if gpus := int(there.get("GPU", 0)):
        return Share(1, 0, gpus)
    return Share(0, cpus, int(there.get("CPU", 0) // cpus))


class Nodes:
    """See ``Source``: what the machines say of their disks, as one."""

    def __init__(self, ray: Any, settings: Mapping[str, Any], cpus: float) -> None:
        """Asks every machine on which an actor fits; raises PythiaError where there is none."""
        self._ray = ray
        nodes = [node for node in ray.nodes() if node["Alive"]]
        has_gpus = any("GPU" in node["Resources"] for node in nodes)
        shares = {node["NodeID"]: share_of(node, cpus) for node in nodes}
        self.shares = {
            id: share for id, share in sorted(shares.items()) if share.count and bool(share.gpus) == has_gpus
        }
        if not self.shares:
            raise PythiaError(f"no machine of the cluster has {cpus:g} processors or a GPU")
        self.holders: dict[str, frozenset[str]] = {}
        self.default = str(settings["model"])
        self._probes = {id: self._probe(id, share, settings) for id, share in self.shares.items()}

    def _probe(self, node: str, share: Share, settings: Mapping[str, Any]) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote = self._ray.remote(**share.options)(Probe)
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return remote.options(scheduling_strategy=there).remote(settings)

    async def steps(self, name: str) -> set[int]:
        """Those that any machine has."""
        return set().union(*self._ask("steps", name).values())

    async def look(self, names: Sequence[str]) -> list[Facts | PythiaError]:
        """What each name means, everywhere the same."""
        found = self._ask("look", list(names))
        return [self._one(name, {id: told[place] for id, told in found.items()}) for place, name in enumerate(names)]

    def _one(self, name: str, told: Mapping[str, Facts | str]) -> Facts | PythiaError:
        facts = {id: one for id, one in told.items() if isinstance(one, Facts)}
        if not facts:
            return CheckpointError(str(next(iter(told.values()))), param="model")
        if len({(one.weights, one.fingerprint) for one in facts.values()}) > 1:
            return CheckpointError(
                f"{name} has other weights, or is computed otherwise, on some machines of the cluster",
                param="model",
            )
        first = next(iter(facts.values()))
        self.holders[first.weights] = self.holders.get(first.weights, frozenset()) | facts.keys()
        return first

    def _ask(self, method: str, argument: Any) -> dict[str, Any]:
        asked = {id: getattr(probe, method).remote(argument) for id, probe in self._probes.items()}
        return {id: self._ray.get(answer) for id, answer in asked.items()}

    def close(self) -> None:
        """Make room for the actors."""
        self._ray.get([probe.close.remote() for probe in self._probes.values()])
        for probe in self._probes.values():
            self._ray.kill(probe)
