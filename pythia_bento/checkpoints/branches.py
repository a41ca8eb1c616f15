"""Which branches of a model hold the same weights, from the hub's metadata alone.

A branch's name says which training step it holds; its files say what it does hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass

from pythia_bento import catalog
from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints import hub
from pythia_bento.checkpoints.hub import Listing
from pythia_bento.errors import ModelNotFound

_REQUESTS_AT_ONCE = 8
Report = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch, and how its weights relate to those of the others."""

    model: ModelId  # at this branch
    commit: str
    weights: dict[str, str]  # file -> sha256
    same_as: tuple[str, ...]  # branches with exactly these weights
    shares_with: tuple[str, ...]  # branches with some of these files, such as a first shard

    @property
    def name(self) -> str:
        """Of the branch."""
        return self.model.revision

    @property
    def step(self) -> int | None:
        """The training step that the name claims."""
        return self.model.claimed_step

    @property
    def told(self) -> list[str]:
        """What is said of it and written down: all that has some of its weights."""
        return [*self.same_as, *(f"{branch} (in part)" for branch in self.shares_with)]

    @property
    def weight_hash(self) -> str:
        """sha256 of the weight file; of their list when there are several; empty without any."""
        if not self.weights:
            return ""
        if len(self.weights) == 1:
            return next(iter(self.weights.values()))
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.weights.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def list_branches(model: ModelId, on_progress: Report | None = None) -> list[Branch]:
    """Every ``main`` and ``step<N>`` branch in the order of training, ``main`` first.

    Asks for the metadata of each, a few at a time.
    """
    refs = hub.branches(model)
    commits = {b: c for b, c in refs.items() if model.at(b).claimed_step is not None}
    with closing(ask_for_all(model, commits, on_progress)) as asked:
        weights = {branch: future.result().weights for branch, future in asked}
    rows = [related(model.at(branch), commits[branch], weights) for branch in commits]
    return sorted(rows, key=lambda row: (row.name != catalog.MAIN, row.step))


def ask_for_all(
    model: ModelId, commits: Mapping[str, str], on_progress: Report | None
) -> Generator[tuple[str, Future[Listing]], None, None]:
    """Each branch as soon as the hub has told of its commit, or that has failed."""
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        futures = {pool.submit(hub.listing, model.at(c)): branch for branch, c in commits.items()}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                yield futures[future], future
                if on_progress:
                    on_progress(f"asking for {model.name}", done, len(futures))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def same_weights(model: ModelId, commit: str) -> list[str]:
    """Branches that hold some of the weights of ``model``, of those where it is worth a look.

    That is ``main`` and the steps before and after. All others are left to ``list_branches``.
    """
    weights = {model.revision: hub.listing(model.at(commit)).weights}
    for suspect in suspects(model):
        try:
            other = hub.listing(model.at(suspect))
        except ModelNotFound:
            continue  # this repository has no such branch
        if other.commit != commit:
            weights[suspect] = other.weights
    return related(model, commit, weights).told


def suspects(model: ModelId) -> list[str]:
    """Branches that are likely to hold the weights of another: main, the steps beside it."""
    steps, found = catalog.STEPS, [catalog.MAIN]
    if model.step in steps:
        at = steps.index(model.step)
        near = [*steps[max(0, at - 1) : at], *steps[at + 1 : at + 2]]
        found += [f"step{step}" for step in near]
    return [branch for branch in found if branch != model.revision]


def related(model: ModelId, commit: str, weights: Mapping[str, dict[str, str]]) -> Branch:
    """A branch beside all others whose ``weights`` are known, its own among them."""
    mine = weights[model.revision]
    others = [model.at(branch) for branch in weights if branch != model.revision]
    others = [other for other in others if not _expected(model, other)]
    same = tuple(o.revision for o in others if mine and weights[o.revision] == mine)
    hashes = set(mine.values())
    parts = (o.revision for o in others if hashes & set(weights[o.revision].values()))
    return Branch(model, commit, mine, same, tuple(part for part in parts if part not in same))


def _expected(one: ModelId, other: ModelId) -> bool:
    """Main is the last step: they may be equal."""
    return one.claimed_step == other.claimed_step
