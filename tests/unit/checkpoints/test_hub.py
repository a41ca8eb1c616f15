"""What a hub that is not to be trusted says, or one of another kind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pythia_bento.catalog import parse
from pythia_bento.checkpoints import hub
from pythia_bento.errors import CheckpointError

MODEL = parse("Someone/pythia@v1")
COMMIT = "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"


def sibling(name: str, sha256: str | None = None) -> Any:
    lfs = None if sha256 is None else SimpleNamespace(sha256=sha256)
    return SimpleNamespace(rfilename=name, size=3, lfs=lfs, blob_id="0" * 40)


SMALL = [sibling("config.json"), sibling("tokenizer.json")]


def answer(monkeypatch: pytest.MonkeyPatch, commit: str | None, files: list[Any]) -> None:
    info = SimpleNamespace(sha=commit, siblings=files)
    api = SimpleNamespace(model_info=lambda *args, **kwargs: info)
    monkeypatch.setattr(hub, "HfApi", lambda: api)


def test_needed_files_come_with_their_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [*SMALL, sibling("model.safetensors", "a" * 64), sibling("optimizer.pt", "b" * 64)]
    answer(monkeypatch, COMMIT, files)
    snapshot = hub.resolve(MODEL)
    assert (snapshot.model, snapshot.commit) == (MODEL.at(COMMIT), COMMIT)
    config, tokenizer, weights = snapshot.files
    assert (config.hash, config.blob_id, tokenizer.name) == (None, "0" * 40, "tokenizer.json")
    assert weights.hash is not None
    assert (weights.hash.sha256, weights.hash.size) == ("a" * 64, 3)


@pytest.mark.parametrize("commit", [None, "main", "../../" + "a" * 34, "A" * 40, COMMIT + "\n"])
def test_a_commit_that_is_none_names_no_folder(
    monkeypatch: pytest.MonkeyPatch, commit: str | None
) -> None:
    answer(monkeypatch, commit, [*SMALL, sibling("model.safetensors", "a" * 64)])
    with pytest.raises(CheckpointError, match="the hub gives no commit for Someone/pythia@v1"):
        hub.resolve(MODEL)


@pytest.mark.parametrize("sha256", ["", "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_a_sha256_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, sha256: str) -> None:
    answer(monkeypatch, COMMIT, [*SMALL, sibling("model.safetensors", sha256)])
    with pytest.raises(CheckpointError, match=r"no sha256 of model\.safetensors that is one"):
        hub.resolve(MODEL)
