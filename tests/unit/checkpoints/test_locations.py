"""What a setting names as the model: an id, or a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints.locations import parse_location
from pythia_bento.errors import CheckpointError, ModelNotFound


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("bundled", ModelId("bundled")),
        ("bundled@step64", ModelId("bundled", "step64")),
        ("EleutherAI/pythia-14m@step8", ModelId("pythia-14m", "step8")),
        ("Someone/pythia@v1", ModelId("Someone/pythia", "v1")),
    ],
)
def test_ids(text: str, model: ModelId) -> None:
    assert parse_location(text) == model


def test_a_directory_is_written_as_a_path_and_shadows_no_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pythia-14m", "bundled", "bundled@step64", "bundled2", "mine/model"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("pythia-14m", "bundled", "bundled@step64", "mine/model"):
        assert str(parse_location(text)) == text
        for path in (f"./{text}", f"~/{text}", f"{tmp_path}/{text}", f"../{tmp_path.name}/{text}"):
            assert parse_location(path) == tmp_path / text
    assert parse_location(".") == tmp_path
    assert parse_location("..") == tmp_path.parent


@pytest.mark.parametrize("name", ["bundled2", "a/b/c", ".hidden", "pythia-14m@x y"])
def test_an_unknown_name_of_a_directory_says_how_to_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound, match=f"; write ./{name} for the directory of that name$"):
        parse_location(name)


@pytest.mark.parametrize("text", ["/no/such", "./x", "~/no-such-dir", "~nobody-of-that-name/x"])
def test_a_path_to_nothing_is_named(text: str) -> None:
    with pytest.raises(CheckpointError, match=f"directory does not exist: {text}"):
        parse_location(text)


@pytest.mark.parametrize("text", ["pythia-1c", "x" * 10_000, "a\0b"])
def test_what_is_neither_gets_the_nearest_ids(text: str) -> None:
    with pytest.raises(ModelNotFound, match="nearest are"):
        parse_location(text)
