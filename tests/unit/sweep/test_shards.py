"""Whose each part is, and what a merge finds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from pythia_bento.errors import InvalidRequest, ModelNotFound
from pythia_bento.sweep.events import Checkpoint, Done, Row
from pythia_bento.sweep.files import Output, Recorder, begin
from pythia_bento.sweep.shards import Shard, merge
from pythia_bento.sweep.source import Facts
from pythia_bento.sweep.table import FORMATS, SWEEP
from tests.unit.sweep.fakes import spec

WEIGHTS = [f"weights {number}" for number in range(400)]
IDS = [f"bundled@step{step}" for step in range(5)]
ASKED = [(id, Facts(0, None, f"w {id}", "print")) for id in IDS]
SPEC = spec(10)
both = pytest.mark.parametrize("suffix", FORMATS)


def sweep(directory: Path, suffix: str, shard: Shard, ids: list[str] = IDS) -> list[str]:
    """Ids that this shard computed."""
    output, made = Output(directory, suffix, shard), []
    begin(output, SPEC, ASKED)
    recorder = Recorder(output, SPEC)
    for index, id in enumerate(ids):
        if not output.is_done(SPEC.key, id, f"w {id}"):
            made.append(id)
            recorder.record(Checkpoint(index, id, index, 0, None, f"w {id}", "print"))
            for number in recorder.items:
                recorder.record(Row(checkpoint=index, item=number, logprob=-number / 3))
            recorder.record(Done(index))
    recorder.close()
    return made


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_every_checkpoint_is_of_one_shard(count: int) -> None:
    owners = {w: [i for i in range(count) if Shard(i, count).has(w)] for w in WEIGHTS}
    assert {len(found) for found in owners.values()} == {1}
    sizes = Counter(found[0] for found in owners.values())
    assert len(sizes) == count and min(sizes.values()) > 400 / count / 3


def test_one_shard_more_moves_only_what_it_takes() -> None:
    before = {w: next(i for i in range(8) if Shard(i, 8).has(w)) for w in WEIGHTS}
    after = {w: next(i for i in range(9) if Shard(i, 9).has(w)) for w in WEIGHTS}
    assert {after[w] for w in WEIGHTS if after[w] != before[w]} == {8}


@pytest.mark.parametrize(("items", "count"), [(10, 3), (2, 5), (4096, 4096), (7, 1)])
def test_every_item_is_of_one_shard(items: int, count: int) -> None:
    parts = [Shard(index, count, "items").items(items) for index in range(count)]
    assert [number for part in parts for number in part] == list(range(items))


@pytest.mark.parametrize("text", ["", "3", "3/3", "4/3", "-1/3", "0/0", "0/4097", "a/b", "1/2/3"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(InvalidRequest, match="shard must be I/N") as raised:
        Shard.parse(text)
    assert raised.value.param == "shard"


@both
def test_shards_by_checkpoints_make_what_one_makes(tmp_path: Path, suffix: str) -> None:
    assert sweep(tmp_path / "one", suffix, Shard()) == IDS
    made = [sweep(tmp_path / "four", suffix, Shard(index, 4)) for index in range(4)]
    assert sorted(id for part in made for id in part) == IDS
    assert files(tmp_path / "four") == files(tmp_path / "one")
    assert [lacks for _, lacks in merge(tmp_path / "four")] == [""] * 5


@both
def test_shards_by_items_make_what_one_makes(tmp_path: Path, suffix: str) -> None:
    sweep(tmp_path / "one", suffix, Shard())
    for index in range(3):
        assert sweep(tmp_path / "three", suffix, Shard(index, 3, "items")) == IDS
        assert sweep(tmp_path / "three", suffix, Shard(index, 3, "items")) == []
    assert len(files(tmp_path / "three")) == 1 + 5 * 3
    assert [lacks for _, lacks in merge(tmp_path / "three")] == [""] * 5
    assert files(tmp_path / "three") == files(tmp_path / "one")
    assert sweep(tmp_path / "three", suffix, Shard(1, 3, "items")) == []


@both
def test_a_merge_says_what_is_missing(tmp_path: Path, suffix: str) -> None:
    for index in (0, 2):
        sweep(tmp_path, suffix, Shard(index, 4, "items"), IDS[:2])
    sweep(tmp_path, suffix, Shard(0, 5, "items"), IDS[1:2])
    begin(Output(tmp_path, suffix, Shard()), SPEC, [*ASKED[:3], ("gone", ModelNotFound("gone"))])
    before = files(tmp_path)
    assert [lacks for _, lacks in merge(tmp_path)] == [
        "of its parts 1/4, 3/4 are missing",
        "of its parts 1/4, 3/4 are missing",
        "its file is missing",
        "it was not there",
    ]
    assert files(tmp_path) == before


@both
def test_parts_that_are_left_of_another_number_of_shards_go(tmp_path: Path, suffix: str) -> None:
    sweep(tmp_path / "one", suffix, Shard())
    sweep(tmp_path / "two", suffix, Shard(0, 5, "items"))
    for index in range(2):
        sweep(tmp_path / "two", suffix, Shard(index, 2, "items"))
    assert [lacks for _, lacks in merge(tmp_path / "two")] == [""] * 5
    assert files(tmp_path / "two") == files(tmp_path / "one")


@both
def test_parts_of_other_code_are_not_joined(tmp_path: Path, suffix: str) -> None:
    output = Output(tmp_path, suffix, Shard(0, 2, "items"))
    begin(output, SPEC, ASKED[:1])
    for index in range(2):
        recorder = Recorder(Output(tmp_path, suffix, Shard(index, 2, "items")), SPEC)
        recorder.record(Checkpoint(0, IDS[0], 0, 0, None, f"w {IDS[0]}", f"print {index}"))
        for number in recorder.items:
            recorder.record(Row(checkpoint=0, item=number))
        recorder.record(Done(0))
    [(_, lacks)] = merge(tmp_path)
    assert lacks == "its parts were computed by different code or kernels"


def test_a_directory_of_another_sweep_is_left_alone(tmp_path: Path) -> None:
    sweep(tmp_path, "jsonl", Shard())
    before = files(tmp_path)
    with pytest.raises(InvalidRequest, match="has another sweep") as raised:
        begin(Output(tmp_path, "jsonl", Shard()), spec(9), ASKED)
    assert raised.value.param == "output"
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "said",
    [
        "",
        "[]",
        "{}",
        json.dumps({"key": "k", "items": {"count": 1}, "checkpoints": [{}]}),
        json.dumps(
            {
                "key": "k",
                "items": {"count": 1},
                "checkpoints": [{"model": "m", "file": "../../x", "weights": "w"}],
            }
        ),
    ],
)
def test_what_a_merge_cannot_read(tmp_path: Path, said: str) -> None:
    with pytest.raises(InvalidRequest, match="nothing was swept into"):
        list(merge(tmp_path))
    (tmp_path / SWEEP).write_text(said)
    with pytest.raises(InvalidRequest, match="was not written by a sweep, or was changed"):
        list(merge(tmp_path))
