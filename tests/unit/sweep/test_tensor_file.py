"""Files of activations: whole or not at all, read as answers are, and joined of their parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pythia_bento.client import open_activations
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.activations import Run
from pythia_bento.sweep import tensor_file
from pythia_bento.sweep.events import Checkpoint, Done, Failed, Row
from pythia_bento.sweep.files import Output, Recorder, begin
from pythia_bento.sweep.shards import Shard, merge
from pythia_bento.sweep.source import Facts
from pythia_bento.sweep.spec import SweepSpec
from pythia_bento.sweep.table import is_done, read_metadata
from pythia_bento.sweep.tensor_file import SUFFIX
from tests.unit.protocol.test_activations import answer
from tests.unit.sweep.fakes import spec

CHECKPOINT = Checkpoint(0, "toy@step3", 3, None, "c" * 40, "w3", "print 3")
FACTS = Facts(3, "c" * 40, "w3", "print 3")
ERROR = InvalidRequest("prompt is too long")
PLACE = f"model=toy/step=000003.{SUFFIX}"


def task() -> SweepSpec:
    return spec(3, models=["toy@step3"], task={"type": "activations", "logits": {"tokens": [1]}})


def rows() -> list[Row]:
    first, second = answer()
    return [
        Row(checkpoint=0, item=0, id="item 0", run=first),
        Row(checkpoint=0, item=1, id="item 1", error=ERROR),
        Row(checkpoint=0, item=2, id="item 2", run=second),
    ]


def write(folder: Path, rows: list[Row], shard: Shard | None = None) -> Recorder:
    output = Output(folder, SUFFIX, shard or Shard())
    begin(output, task(), [("toy@step3", FACTS)])
    recorder = Recorder(output, task())
    recorder.record(CHECKPOINT)
    for row in rows:
        recorder.record(row)
    recorder.record(Done(0))
    return recorder


def same(one: Run, other: Run) -> bool:
    assert list(one) == list(other)
    arrays = all(np.array_equal(one[name], other[name]) for name in one)
    told = (one.tokens, one.token_ids, one.completion, one.num_layers)
    return arrays and told == (other.tokens, other.token_ids, other.completion, other.num_layers)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_file_is_read_as_an_answer_is(tmp_path: Path, order: tuple[int, ...]) -> None:
    made = rows()
    recorder = write(tmp_path, [made[place] for place in order])
    assert (recorder.num_done, recorder.num_rows, recorder.num_bad_rows) == (1, 3, 1)
    path = tmp_path / PLACE
    found = open_activations(path)
    assert (found.model, found.fingerprint, len(found)) == ("toy@step3", "print 3", 3)
    first, failed, last = found
    assert made[0].run is not None and same(first, made[0].run)
    assert made[2].run is not None and same(last, made[2].run)
    assert (len(failed), failed.tokens, failed.token_ids) == (0, (), ())
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    tensors = load_file(path)
    assert np.array_equal(tensors["0:hook_embed"], first["hook_embed"])
    assert tensors["2:token_ids"].tolist() == list(last.token_ids)
    metadata = read_metadata(path)
    assert metadata is not None
    assert (metadata.key, metadata.weights, metadata.rows) == (task().key, "w3", 3)
    said = json.loads((tmp_path / "sweep.json").read_text())
    assert said["task"] == {"type": "activations", "logits": {"tokens": [1]}}
    assert (said["format"], said["checkpoints"][0]["file"]) == (SUFFIX, PLACE)


def test_equal_rows_are_equal_bytes(tmp_path: Path) -> None:
    made = rows()
    write(tmp_path / "a", made)
    write(tmp_path / "b", [made[place] for place in (2, 0, 1)])
    assert (tmp_path / "a" / PLACE).read_bytes() == (tmp_path / "b" / PLACE).read_bytes()


def test_what_is_not_whole_is_not_done(tmp_path: Path) -> None:
    write(tmp_path, rows())
    path, key = tmp_path / PLACE, task().key
    assert is_done(path, key, "w3")
    assert not is_done(path, key, "w4") and not is_done(path, "other", "w3")
    content = path.read_bytes()
    for damaged in (content[:-1], content[:7], b"", b"x" * 20, content + b"x"):
        path.write_bytes(damaged)
        assert not is_done(path, key, "w3")
    path.unlink()
    assert not is_done(path, key, "w3")


def test_what_fails_or_ends_early_leaves_nothing(tmp_path: Path) -> None:
    output = Output(tmp_path, SUFFIX, Shard())
    recorder = Recorder(output, task())
    recorder.record(CHECKPOINT)
    recorder.record(rows()[0])
    recorder.record(Failed(0, "toy@step3", ERROR))
    recorder.record(CHECKPOINT)
    recorder.close()
    assert not list((tmp_path / "model=toy").iterdir())
    recorder.record(CHECKPOINT)
    with pytest.raises(ValueError, match="has 0 items, not 3"):
        recorder.record(Done(0))
    recorder.close()


def test_parts_become_the_file_of_one_process(tmp_path: Path) -> None:
    made = rows()
    write(tmp_path / "whole", made)
    for index in range(3):
        shard = Shard(index, 3, "items")
        write(tmp_path / "parts", [made[index]], shard)
        assert Output(tmp_path / "parts", SUFFIX, shard).is_done(task().key, "toy@step3", "w3")
        [(wanted, lacks)] = merge(tmp_path / "parts")
        assert lacks == ("of its parts 1/3, 2/3 are missing" if index == 0 else lacks)
    assert lacks == "" and wanted.path == tmp_path / "parts" / PLACE
    assert wanted.path.read_bytes() == (tmp_path / "whole" / PLACE).read_bytes()
    assert [path.name for path in wanted.path.parent.iterdir()] == [wanted.path.name]


def test_parts_of_which_the_first_failed(tmp_path: Path) -> None:
    made = rows()
    order = [made[1], made[0], made[2]]
    for index, row in enumerate(order):
        write(tmp_path, [replace(row, item=index)], Shard(index, 3, "items"))
    assert [lacks for _, lacks in merge(tmp_path)] == [""]
    found = open_activations(tmp_path / PLACE)
    assert made[0].run is not None and same(found[1], made[0].run)


def test_more_names_than_a_header_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "MAX_HEADER", 500)
    recorder = Recorder(Output(tmp_path, SUFFIX, Shard()), task())
    recorder.record(CHECKPOINT)
    with pytest.raises(InvalidRequest, match=r"more than its first \d items; sweep fewer"):
        for row in rows():
            recorder.record(row)
    recorder.close()
    assert not list((tmp_path / "model=toy").iterdir())
