"""What is computed at a time, and where. Plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pythia_bento.errors import InvalidRequest
from pythia_bento.sweep.part import Group

BLOCK = 4096
"""Items of a unit: its rows are in an actor's memory together, and are lost together."""
MAX_UNITS = 100_000  # of a job: the driver has an object for each


class Unit(NamedTuple):
    """Some items at the first checkpoint of a group."""

    group: int
    model: str
    block: int


def blocks_of(items: range, size: int | None = None) -> list[range]:
    """``size`` places at a time, by default ``BLOCK``."""
    size = size or BLOCK
    return [items[start : start + size] for start in range(0, len(items), size)]


def units_of(groups: Mapping[int, Group], blocks: int) -> list[Unit]:
    """All blocks of one checkpoint, then of the next; raises InvalidRequest for too many."""
    if len(groups) * blocks > MAX_UNITS:
        raise InvalidRequest(
            f"items of {len(groups):,} checkpoints in {blocks:,} blocks each are more than the "
            f"{MAX_UNITS:,} units of one sweep on Ray; sweep a part of them with --shard-by items",
            param="items",
        )
    return [
        Unit(number, group.checkpoints[0].model, block)
        for number, group in groups.items()
        for block in range(blocks)
    ]


def places_of(
    holders: Mapping[int, frozenset[str]], nodes: frozenset[str]
) -> dict[int, str | None]:
    """The node for each group; None where all are as good, and Ray chooses.

    ``holders`` are those of ``nodes`` that have a group's weights on their disks. Of these it is
    the one with the fewest groups so far.
    """
    taken: Counter[str] = Counter()
    found: dict[int, str | None] = {}
    for group, having in holders.items():
        found[group] = None
        if having and having != nodes:
            node = min(sorted(having), key=taken.__getitem__)
            taken[node] += 1
            found[group] = node
    return found


def by_place(
    units: Sequence[Unit], places: Mapping[int, str | None]
) -> dict[str | None, list[Unit]]:
    """Units that go together, by where they go."""
    found: dict[str | None, list[Unit]] = {}
    for unit in units:
        found.setdefault(places[unit.group], []).append(unit)
    return found
