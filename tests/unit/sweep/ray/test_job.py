"""Answers of units, in any order, become the events of a sweep; no Ray and no engine."""

from __future__ import annotations

from pathlib import Path

from pythia_bento.sweep.events import Checkpoint, Done, Event, Failed, Row
from pythia_bento.sweep.part import Group
from pythia_bento.sweep.ray.job import Telling
from pythia_bento.sweep.ray.spool import Spool
from pythia_bento.sweep.ray.wire import encode
from pythia_bento.sweep.ray.work import Answer

FIRST = Checkpoint(0, "m@step1", 1, None, None, "x", "")
SAME = Checkpoint(1, "m@step2", 2, None, None, "x", "", computed=False)
OTHER = Checkpoint(2, "m@step4", 4, None, None, "y", "")


def telling(folder: Path) -> Telling:
    return Telling({0: Group([FIRST, SAME]), 1: Group([OTHER])}, Spool(folder, 2))


def answer(group: int, block: int, fingerprint: str = "cpu", error: str | None = None) -> Answer:
    rows = [Row(checkpoint=0, item=2 * block + place) for place in range(2)]
    return Answer(group, block, encode(rows), fingerprint, error)


def items(events: list[Event]) -> list[tuple[int, int]]:
    return [(one.checkpoint, one.item) for one in events if isinstance(one, Row)]


def test_a_group_is_told_when_it_is_complete_and_in_order(tmp_path: Path) -> None:
    told = telling(tmp_path)
    assert list(told.of(answer(0, 1))) == []
    assert list(told.of(answer(1, 0))) == []
    events = list(told.of(answer(0, 0)))
    assert items(events) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]
    begun = [one for one in events if isinstance(one, Checkpoint)]
    assert [(one.model, one.computed) for one in begun] == [("m@step1", True), ("m@step2", False)]
    assert {one.system_fingerprint for one in begun} == {"cpu"}
    assert isinstance(events[-1], Done)
    assert list(told.groups) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["1-0.jsonl"]


def test_what_comes_twice_is_told_once(tmp_path: Path) -> None:
    told = telling(tmp_path)
    for block in (1, 1, 0):
        events = list(told.of(answer(1, block)))
    assert items(events) == [(2, 0), (2, 1), (2, 2), (2, 3)]
    assert list(told.of(answer(1, 0))) == []


def test_a_unit_that_fails_fails_all_checkpoints_with_its_weights(tmp_path: Path) -> None:
    told = telling(tmp_path)
    list(told.of(answer(0, 0)))
    events = list(told.of(answer(0, 1, error="a file is damaged")))
    assert [(one.model, one.error.message) for one in events if isinstance(one, Failed)] == [
        *(("m@step1", "a file is damaged"), ("m@step2", "a file is damaged"))
    ]
    assert len(events) == 2 and list(told.groups) == [1]
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_were_computed_otherwise_are_not_mixed(tmp_path: Path) -> None:
    told = telling(tmp_path)
    list(told.of(answer(1, 0, "cpu")))
    [failed] = told.of(answer(1, 1, "h200"))
    assert isinstance(failed, Failed)
    assert failed.error.message == "some machines compute it as cpu, others as h200"
