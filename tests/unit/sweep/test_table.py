"""Files: whole or not there, equal for equal rows, and what they say of themselves."""

from __future__ import annotations

import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pyarrow.parquet
import pytest

from pythia_bento.errors import InvalidRequest, NonFiniteLogits
from pythia_bento.sweep import table
from pythia_bento.sweep.columns import COLUMNS, of_checkpoint, of_row
from pythia_bento.sweep.events import Checkpoint, Row
from pythia_bento.sweep.parquet import NoPyarrow
from pythia_bento.sweep.table import (
    FORMATS,
    Metadata,
    TableFile,
    is_done,
    place_of,
    read_metadata,
    read_rows,
)

CHECKPOINT = Checkpoint(0, "someone/tiny@step64", 64, 128, "c" * 40, "w" * 64, "print")
FIRST = of_checkpoint(CHECKPOINT)
ROWS = [
    Row(
        checkpoint=0,
        item=0,
        id="a",
        logprob=-1.25,
        num_tokens=2,
        greedy_tokens=1,
        is_greedy=False,
        token_ids=(5, 6),
        logprobs=(-1.0, -0.25),
        ranks=(1, 3),
    ),
    Row(checkpoint=0, item=1, text=" déjà \u2028vu\n", finish_reason="stop", token_ids=()),
    Row(checkpoint=0, item=2, matched=3, extractable=True, share=0.5),
    Row(checkpoint=0, item=3, error=NonFiniteLogits("no number")),
]
METADATA = Metadata("key", "w" * 64, "print", "c" * 40, ("someone/tiny@step1",), len(ROWS))
both = pytest.mark.parametrize("suffix", FORMATS)


def write(path: Path, rows: list[Row] = ROWS, metadata: Metadata = METADATA) -> Path:
    file = TableFile(path, FIRST, metadata, rows[0].item if rows else 0)
    for row in rows:
        file.add(row)
    file.finish()
    return path


@both
def test_what_was_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / "x" / f"a.{suffix}")
    assert list(read_rows(path)) == [
        tuple(list(value) if isinstance(value, tuple) else value for value in of_row(FIRST, row))
        for row in ROWS
    ]
    assert read_metadata(path) == METADATA
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@both
def test_rows_may_come_in_any_order_and_in_groups(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "ROW_GROUP", 7)
    rows = [Row(checkpoint=0, item=number, logprob=-number / 3) for number in range(5, 40)]
    metadata = replace(METADATA, rows=len(rows))
    straight = write(tmp_path / f"a.{suffix}", rows, metadata).read_bytes()
    file = TableFile(tmp_path / f"b.{suffix}", FIRST, metadata, 5)
    for row in random.Random(1).sample(rows, len(rows)):
        file.add(row)
    file.finish()
    assert (tmp_path / f"b.{suffix}").read_bytes() == straight
    assert [row[4] for row in read_rows(tmp_path / f"b.{suffix}")] == list(range(5, 40))


@both
def test_done_is_a_whole_file_of_this_key_and_these_weights(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    assert not is_done(path, "key", "w" * 64)
    write(path)
    assert is_done(path, "key", "w" * 64)
    assert not is_done(path, "other", "w" * 64)
    assert not is_done(path, "key", "v" * 64)
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert not is_done(path, "key", "w" * 64), size


@both
@pytest.mark.parametrize("said", [[], {}, {"key": "key"}, asdict(METADATA) | {"more": 1}])
def test_metadata_that_makes_no_sense_is_none(tmp_path: Path, suffix: str, said: Any) -> None:
    path = tmp_path / f"a.{suffix}"
    kind = table.parquet.ParquetTable if suffix == "parquet" else table.jsonl.JsonLines
    kind(path, said).close()
    assert read_metadata(path) is None


@both
def test_nothing_is_there_before_all_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    file = TableFile(path, FIRST, METADATA, 0)
    file.add(ROWS[0])
    with pytest.raises(ValueError, match="has 1 rows, not 4"):
        file.finish()
    assert not path.exists()
    file.discard()
    assert list(tmp_path.iterdir()) == []


@both
def test_what_was_left_by_a_crash_is_written_over(tmp_path: Path, suffix: str) -> None:
    whole = write(tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f".b.{suffix}.part").write_bytes(2 * whole)
    assert write(tmp_path / f"b.{suffix}").read_bytes() == whole
    assert len(list(tmp_path.iterdir())) == 2


@both
def test_a_part_without_rows(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", [], replace(METADATA, rows=0))
    assert is_done(path, "key", "w" * 64)
    assert list(read_rows(path)) == []


def test_readers_of_directories_find_one_table(tmp_path: Path) -> None:
    write(tmp_path / place_of("someone/tiny@step64", "parquet"))
    write(tmp_path / place_of("someone/tiny@step128", "parquet"))
    found = pyarrow.parquet.read_table(tmp_path)
    assert found.schema.names == list(COLUMNS)
    assert found.column("model").to_pylist() == ["someone/tiny"] * 8
    assert pyarrow.dataset.dataset(tmp_path).to_table().num_rows == 8
    kinds = {field.name: str(field.type) for field in found.schema}
    assert kinds["model"] == "dictionary<values=string, indices=int32, ordered=0>"
    assert kinds["logprobs"] == "list<element: float>"
    assert (kinds["logprob"], kinds["step"], kinds["share"]) == ("double", "int64", "float")


@pytest.mark.parametrize(
    ("id", "place"),
    [
        ("bundled@step64", "model=bundled/step=000064.jsonl"),
        ("bundled", "model=bundled/revision=main.jsonl"),
        ("pythia-14m@step143000", "model=pythia-14m/step=143000.jsonl"),
        ("someone/tiny@dev", "model=someone%2Ftiny/revision=dev.jsonl"),
        ("../../etc@../x", "model=..%2F..%2Fetc/revision=..%2Fx.jsonl"),
    ],
)
def test_places(id: str, place: str) -> None:
    assert place_of(id, "jsonl") == Path(place)


def test_a_part_of_the_items_has_a_place_of_its_own() -> None:
    assert place_of("bundled@step0", "jsonl", "3/16").name == "step=000000.part-3-of-16.jsonl"


def test_without_pyarrow_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(NoPyarrow) as raised:
        write(tmp_path / "a.parquet")
    assert raised.value.message == (
        "sweeps write Parquet with pyarrow, which is not installed; pip install "
        "'pythia-bento[sweep]', or --format jsonl"
    )
    write(tmp_path / "a.jsonl")


def test_rows_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"metadata": {}}\n[1]\n')
    with pytest.raises(InvalidRequest, match=r"a\.jsonl, line 2 is no row"):
        list(read_rows(tmp_path / "a.jsonl"))
    (tmp_path / "a.parquet").write_text("PAR1")
    with pytest.raises(InvalidRequest, match="cannot be read as Parquet"):
        list(read_rows(tmp_path / "a.parquet"))


def test_shards_say_the_same_at_the_same_time(tmp_path: Path) -> None:
    """Each renames what it wrote itself: none misses a file that another one has moved."""
    said = {"checkpoints": list(range(500))}
    path = tmp_path / "sweep.json"

    def say(shard: int) -> None:
        for _ in range(40):
            table.write_json(path, said, f"{shard}-of-8")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(say, range(8)))
    assert json.loads(path.read_bytes()) == said
    assert [one.name for one in tmp_path.iterdir()] == ["sweep.json"]
