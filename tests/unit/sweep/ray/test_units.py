"""What is computed at a time and where, without Ray."""

from __future__ import annotations

import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.sweep.events import Checkpoint
from pythia_bento.sweep.part import Group
from pythia_bento.sweep.ray import units
from pythia_bento.sweep.ray.units import Unit, blocks_of, by_place, places_of, units_of


def group(step: int) -> Group:
    return Group([Checkpoint(0, f"m@step{step}", step, None, None, f"w{step}", "")])


def test_blocks_cover_the_items_once() -> None:
    assert blocks_of(range(3, 10), 3) == [range(3, 6), range(6, 9), range(9, 10)]
    assert [place for block in blocks_of(range(10_000)) for place in block] == list(range(10_000))
    assert max(map(len, blocks_of(range(10_000)))) == units.BLOCK


def test_units_go_checkpoint_by_checkpoint() -> None:
    assert units_of({0: group(1), 2: group(8)}, 2) == [
        *(Unit(0, "m@step1", 0), Unit(0, "m@step1", 1)),
        *(Unit(2, "m@step8", 0), Unit(2, "m@step8", 1)),
    ]


def test_more_units_than_a_driver_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "MAX_UNITS", 3)
    with pytest.raises(InvalidRequest, match="items of 2 checkpoints in 2 blocks each are more"):
        units_of({0: group(1), 1: group(2)}, 2)


def test_ray_chooses_where_all_machines_are_as_good() -> None:
    both = frozenset({"a", "b"})
    assert places_of({0: both, 1: both}, both) == {0: None, 1: None}


def test_checkpoints_go_where_they_lie_and_evenly() -> None:
    nodes = frozenset({"a", "b", "c"})
    holders = {0: {"a"}, 1: {"a", "b"}, 2: {"a", "b"}, 3: {"b", "c"}, 4: set(nodes)}
    found = places_of({i: frozenset(one) for i, one in holders.items()}, nodes)
    assert found == {0: "a", 1: "b", 2: "a", 3: "c", 4: None}
    units = [Unit(number, "m", 0) for number in found]
    assert {place: [one.group for one in its] for place, its in by_place(units, found).items()} == {
        **{"a": [0, 2], "b": [1], "c": [3], None: [4]}
    }
