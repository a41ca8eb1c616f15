"""What is computed at a time, and where. Plain data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pythia_bento.errors import InvalidRequest
from pythia_bento.sweep.part import Group

BLOCK = 4096
"""Items of a unit: rows of one are in an actor's memory at a time, and are lost together."""
MAX_UNITS = 100_000  # of a job: each is an object of the driver's


class Unit(NamedTuple):
    """Some items at the first checkpoint of a group."""

    group: int
    model: str
    block: int


def blocks_of(count: int, size: int = BLOCK) -> list[range]:
    """Items by number, ``size`` at a time."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def units_of(groups: Mapping[int, Group], blocks: int) -> list[Unit]:
    """All blocks of one checkpoint, then of the next; raises InvalidRequest for too many."""
    if len(groups) * blocks > MAX_UNITS:
        raise InvalidRequest(
            f"{len(groups):,} checkpoints times {blocks:,} blocks of {BLOCK:,} items are more than "
            f"{MAX_UNITS:,}; sweep parts of the items (--shard-by items)",
            param="items",
        )
    return [
        Unit(number, group.checkpoints[0].model, block)
        for number, group in groups.items()
        for block in range(blocks)
    ]


def places_of(
    weights: Mapping[int, str],
    holders: Mapping[str, frozenset[str]],
    nodes: frozenset[str],
) -> dict[int, str | None]:
    """The node for each group; None where all nodes are as good, and Ray may choose.

    ``weights`` are those of the groups, ``holders`` those of ``nodes`` that have them on their
    disks. Of these it is the one with the fewest groups so far, the same in every run.
    """
    taken: Counter[str] = Counter()
    found: dict[int, str | None] = {}
    for group, key in weights.items():
        found[group] = None
        if holders[key] != nodes:
            found[group] = min(holders[key], key=lambda node: (taken[node], _draw(key, node)))
            taken[str(found[group])] += 1
    return found


def by_place(units: Sequence[Unit], places: Mapping[int, str | None]) -> dict[str | None, list[Unit]]:
    """Units of one job each."""
    found: dict[str | None, list[Unit]] = {}
    for unit in units:
        found.setdefault(places[unit.group], []).append(unit)
    return found


def _draw(key: str, node: str) -> bytes:
    return hashlib.sha256(f"{key} {node}".encode()).digest()
