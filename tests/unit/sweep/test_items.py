"""Items out of files, and what is said of files that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.sweep import items
from pythia_bento.sweep.items import read_items
from pythia_bento.sweep.spec import Item


def made(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def parquet(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_json_lines(tmp_path: Path) -> None:
    lines = b'{"prompt": "a"}\r\n\n{"id": "x", "prompt": [5, 6], "continuation": "\\u00e9"}'
    assert read_items(made(tmp_path / "a.jsonl", lines)) == (
        Item(prompt="a"),
        Item(id="x", prompt=[5, 6], continuation="é"),
    )


def test_texts(tmp_path: Path) -> None:
    path = made(tmp_path / "a.txt", "Once upon\n\n  a time\r\nété".encode())
    assert [item.prompt for item in read_items(path)] == ["Once upon", "  a time", "été"]


def test_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", id=["x", None], prompt=["a", "b"])
    assert read_items(path) == (Item(id="x", prompt="a"), Item(prompt="b"))
    path = parquet(tmp_path / "b.parquet", prompt=[[5, 6]], continuation=[[7]])
    assert read_items(path) == (Item(prompt=[5, 6], continuation=[7]),)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b"", "items must be a .jsonl, .txt or .parquet file, not a.csv"),
        ("a.jsonl", b"\n", "a.jsonl has no items"),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": 5}', "line 2: prompt must be a string or"),
        ("a.jsonl", b'\n\n{"prompt": "a", "text": "a"}', "line 3: text is not a field"),
        ("a.jsonl", b'{"id": 5, "prompt": "a"}', "line 1: id must be a valid string, not 5"),
        ("a.jsonl", b"[]", "line 1: an item must be a JSON object"),
        ("a.jsonl", b'{"prompt": "a"', "line 1: it is not valid JSON"),
        ("a.jsonl", b'{"prompt": "\xff"}', "line 1: it is not valid"),
        ("a.jsonl", b'{"prompt": "a", "continuation": true}', "line 1: continuation must be"),
        ("a.txt", b"a\nb\xff", "line 2: it is not UTF-8: invalid start byte at byte 1"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_items(made(tmp_path / name, data))
    assert words in raised.value.message


def test_what_is_wrong_in_parquet_is_named_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="has a column 'text'; known are id, prompt"):
        read_items(parquet(tmp_path / "a.parquet", text=["a"]))
    with pytest.raises(InvalidRequest, match="row 1: prompt is required"):
        read_items(parquet(tmp_path / "b.parquet", prompt=["a", None]))


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "MAX_FILE_ITEMS", 2)
    monkeypatch.setattr(items, "MAX_LINE_BYTES", 10)
    assert len(read_items(made(tmp_path / "a.txt", b"a\nb"))) == 2
    with pytest.raises(InvalidRequest, match="has more than 2 items"):
        read_items(made(tmp_path / "a.txt", b"a\nb\nc"))
    with pytest.raises(InvalidRequest, match="line 2 is longer than 10 bytes"):
        read_items(made(tmp_path / "a.txt", b"a\n" + b"b" * 11))
