"""What a hub that is not to be trusted says, or one of another kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pythia_bento.catalog import parse
from pythia_bento.checkpoints import hub
from pythia_bento.errors import CheckpointError

MODEL = parse("Someone/pythia@v1")
COMMIT = "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"


def sibling(name: str, sha256: Any = None, **more: Any) -> dict[str, Any]:
    lfs = {} if sha256 is None else {"lfs": {"sha256": sha256, "size": 3, "pointerSize": 130}}
    return {"rfilename": name, "size": 3, "blobId": "0" * 40, **lfs, **more}


SMALL = [sibling("config.json"), sibling("tokenizer.json")]
WHOLE = [*SMALL, sibling("model.safetensors", "a" * 64)]


def say(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(hub.hub_client, "read", lambda url, what: data)


def answer(monkeypatch: pytest.MonkeyPatch, commit: Any, files: Any) -> None:
    say(monkeypatch, json.dumps({"id": "x", "sha": commit, "siblings": files}).encode())


def refusal(model: Any = MODEL) -> str:
    with pytest.raises(CheckpointError) as caught:
        hub.resolve(model)
    assert "\n" not in caught.value.message and len(caught.value.message) < 400
    return caught.value.message


def test_needed_files_come_with_their_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, COMMIT, [*WHOLE, sibling("optimizer.pt", "b" * 64), sibling("a b/../c")])
    snapshot = hub.resolve(MODEL)
    assert (snapshot.model, snapshot.commit) == (MODEL.at(COMMIT), COMMIT)
    config, tokenizer, weights = snapshot.files
    assert (config.hash, config.blob_id, tokenizer.name) == (None, "0" * 40, "tokenizer.json")
    assert weights.hash is not None
    assert (weights.hash.sha256, weights.hash.size) == ("a" * 64, 3)


@pytest.mark.parametrize(
    "commit",
    [None, 5, [1], "main", "../../" + "a" * 34, "A" * 40, COMMIT + "\n", "a\0b", "a" * 10**6],
)
def test_a_commit_that_is_none_names_no_folder(
    monkeypatch: pytest.MonkeyPatch, commit: object
) -> None:
    answer(monkeypatch, commit, WHOLE)
    assert refusal().startswith("the hub's answer about Someone/pythia@v1: sha ")


def test_more_weight_files_than_any_model_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"model-{number:05}-of-00257.safetensors" for number in range(257)]
    answer(monkeypatch, COMMIT, [*SMALL, *(sibling(name, "a" * 64) for name in names)])
    assert refusal() == "Someone/pythia@v1 has 257 weight files on the hub; the limit is 256"


@pytest.mark.parametrize("sha256", ["", "a" * 63, "A" * 64, "a" * 64 + "\n", 5])
def test_a_sha256_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, sha256: object) -> None:
    answer(monkeypatch, COMMIT, [*SMALL, sibling("model.safetensors", sha256)])
    assert "siblings.2.lfs.sha256 " in refusal()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("x", "siblings must be a valid list"),
        ([5], "siblings.0 "),
        ([{}], "siblings.0.rfilename is missing"),
        ([sibling("config.json", size="5")], "siblings.0.size must be a valid integer, not '5'"),
        ([sibling("config.json", size=-1)], "siblings.0.size"),
        ([sibling("config.json", size=True)], "siblings.0.size"),
        ([sibling("config.json", size=10**30)], "siblings.0.size"),
        ([sibling("config.json", lfs={"size": 3})], "siblings.0.lfs.sha256 is missing"),
        ([sibling("config.json", lfs=[])], "siblings.0.lfs"),
        ([*WHOLE[:2], sibling("model.safetensors", size=None)], "neither size nor hash of model.s"),
        ([*WHOLE[:2], sibling("model.safetensors", "a" * 64, size=4)], "two sizes of model.safe"),
        ([sibling("config.json", size=65 << 20), *WHOLE[1:]], "config.json of Someone/pythia@v1"),
        (WHOLE[:2], "has neither model.safetensors nor"),
        (WHOLE[1:], "has no config.json"),
    ],
)
def test_files_that_are_none_are_named(
    monkeypatch: pytest.MonkeyPatch, files: object, words: str
) -> None:
    answer(monkeypatch, COMMIT, files)
    assert words in refusal()


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", b"[]", b"null", b"5", b"[" * 100_000, b"\xff\xfe", b'{"sha": NaN}', b"{}"],
)
def test_other_answers_are_a_sentence(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    say(monkeypatch, data)
    assert refusal().startswith("the hub's answer about Someone/pythia@v1")
    with pytest.raises(CheckpointError, match=r"the hub's (answer|list of branches)"):
        hub.branches(MODEL)


def test_an_answer_about_another_commit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, COMMIT, WHOLE)
    assert hub.resolve(MODEL.at(COMMIT)).commit == COMMIT
    asked = MODEL.at("b" * 40)
    assert refusal(asked) == f"asked for {asked}, the hub answers about the commit {COMMIT}"


@pytest.mark.parametrize("target", [None, "../x", "main", 7])
def test_branches_point_to_commits(monkeypatch: pytest.MonkeyPatch, target: object) -> None:
    refs = [{"name": "a/b", "ref": "x", "targetCommit": COMMIT}]
    say(monkeypatch, json.dumps({"branches": refs, "tags": []}).encode())
    assert hub.branches(MODEL) == {"a/b": COMMIT}
    say(monkeypatch, json.dumps({"branches": [{"name": "a", "targetCommit": target}]}).encode())
    with pytest.raises(CheckpointError, match=r"branches of Someone/pythia: branches\.0\.targetC"):
        hub.branches(MODEL)
