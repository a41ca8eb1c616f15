"""Which branches of a model hold the same weights, from the hub's metadata alone.

A branch's name says which training step it holds; its files say what it does hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from pythia_bento import catalog
from pythia_bento.checkpoints import hub
from pythia_bento.checkpoints.names import LAST_STEP, ModelName
from pythia_bento.errors import ModelNotFound

_REQUESTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch, and how its weights relate to those of the others."""

    name: str
    commit: str
    weights: dict[str, str]  # file -> sha256
    same_as: tuple[str, ...]  # branches with exactly these weights
    shares_with: tuple[str, ...]  # branches with some of these files, such as a first shard

    @property
    def step(self) -> int | None:
        """The training step that the name claims."""
        return ModelName("", self.name).step

    @property
    def weight_hash(self) -> str:
        """sha256 of the weight file; of their list when there are several; empty without any."""
        if not self.weights:
            return ""
        if len(self.weights) == 1:
            return next(iter(self.weights.values()))
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.weights.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def list_branches(
    name: ModelName, on_progress: Callable[[str, int, int], None] | None = None
) -> list[Branch]:
    """Every ``main`` and ``step<N>`` branch in the order of training, ``main`` first.

    Asks for the metadata of each, a few at a time.
    """
    refs = hub.branches(name)
    commits = {b: c for b, c in refs.items() if ModelName("", b).step is not None}
    weights: dict[str, dict[str, str]] = {}
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        futures = {pool.submit(_weights, name.at(c)): branch for branch, c in commits.items()}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                weights[futures[future]] = future.result()
                if on_progress:
                    on_progress(f"asking for {name.name}", done, len(futures))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    rows = [_branch(branch, commits[branch], weights) for branch in commits]
    return sorted(rows, key=lambda row: (row.name != catalog.MAIN, row.step))


def same_weights(name: ModelName, commit: str) -> list[str]:
    """Branches that hold some of the weights of ``name``, of those where it is worth a look.

    That is ``main`` and the steps before and after. All others are left to ``list_branches``.
    """
    weights = {name.revision: _weights(name.at(commit))}
    for suspect in _suspects(name):
        try:
            other, hashes = hub.weight_hashes(name.at(suspect))
        except ModelNotFound:
            continue  # this repository has no such branch
        if other != commit:
            weights[suspect] = hashes
    row = _branch(name.revision, commit, weights)
    return [*row.same_as, *(f"{suspect} (in part)" for suspect in row.shares_with)]


def _suspects(name: ModelName) -> list[str]:
    steps, suspects = catalog.STEPS, [catalog.MAIN]
    if name.step in steps and name.revision != catalog.MAIN:
        at = steps.index(name.step)
        near = [*steps[max(0, at - 1) : at], *steps[at + 1 : at + 2]]
        suspects += [f"step{step}" for step in near]
    return [branch for branch in suspects if branch != name.revision]


def _weights(name: ModelName) -> dict[str, str]:
    return hub.weight_hashes(name)[1]


def _branch(name: str, commit: str, weights: dict[str, dict[str, str]]) -> Branch:
    mine = weights[name]
    others = [other for other in weights if other != name and not _expected(name, other)]
    same = tuple(other for other in others if mine and weights[other] == mine)
    hashes = set(mine.values())
    shared = tuple(o for o in others if o not in same and hashes & set(weights[o].values()))
    return Branch(name, commit, mine, same, shared)


def _expected(one: str, other: str) -> bool:
    """Main is the last step: they may be equal."""
    return {one, other} == {catalog.MAIN, LAST_STEP}
