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


def test_a_directory_wins_over_an_id_but_not_over_the_bundled_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pythia-14m", "bundled", "bundled@step64", "bundled2"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_location("pythia-14m") == tmp_path / "pythia-14m"
    assert parse_location("bundled2") == tmp_path / "bundled2"
    assert parse_location("bundled") == ModelId("bundled")
    assert parse_location("bundled@step64") == ModelId("bundled", "step64")


@pytest.mark.parametrize("text", ["/no/such", "./x", "~/no-such-dir", "~nobody-of-that-name/x"])
def test_a_path_to_nothing_is_named(text: str) -> None:
    with pytest.raises(CheckpointError, match=f"directory does not exist: {text}"):
        parse_location(text)


@pytest.mark.parametrize("text", ["pythia-1c", "x" * 10_000, "a\0b"])
def test_what_is_neither_gets_the_nearest_ids(text: str) -> None:
    with pytest.raises(ModelNotFound, match="nearest are"):
        parse_location(text)
