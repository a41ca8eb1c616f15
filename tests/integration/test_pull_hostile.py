"""Hubs that send too much, too slowly, or what nobody asked for, and files of others in the way."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from pythia_bento.catalog import ModelId, parse
from pythia_bento.checkpoints import hub_client, store
from pythia_bento.checkpoints.lock import Lock
from pythia_bento.checkpoints.pull import pull
from pythia_bento.checkpoints.resolve import locate, verify
from pythia_bento.checkpoints.workspace import downloads
from pythia_bento.errors import CheckpointError
from tests.hub import HubServer

REPO = "EleutherAI/pythia-14m"
MODEL = parse("pythia-14m@step3000")
FORK = parse("someone/pythia-14m")
WEIGHTS = "model.safetensors"


@pytest.fixture
def commit(hub: HubServer, bento_home: Path, sources: Path) -> str:
    hub.folder.commit(REPO, "main", sources / "b")
    return hub.folder.commit(REPO, "step3000", sources / "a")


def refusal(model: ModelId = MODEL) -> str:
    with pytest.raises(CheckpointError) as caught:
        pull(model)
    assert not store.stored_models()
    assert len(caught.value.message.splitlines()) == 1
    return caught.value.message


def part(name: str, commit: str) -> Path:
    return downloads(MODEL, commit) / f"{name}.part"


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_file_without_end_ends_at_its_size(hub: HubServer, commit: str, name: str) -> None:
    where = "/cdn/" if name == WEIGHTS else f"/resolve/.*{name}"
    hub.fail(where, status=200, body=bytes(16384), endless=True)
    assert f"more than the {(size := size_of(hub, commit, name))} bytes of {name}" in refusal()
    assert part(name, commit).stat().st_size <= size
    assert not pull(MODEL).was_there


def size_of(hub: HubServer, commit: str, name: str) -> int:
    return next(file.size for file in hub.folder.files(REPO, commit) if file.name == name)


def test_an_answer_without_end_is_not_read_to_its_end(hub: HubServer, commit: str) -> None:
    hub.fail("/api/models/", status=200, body=b"[" * 65536, endless=True)
    assert "passes 8388608 bytes" in refusal()
    hub.fail("/api/models/", status=404, body=b"[" * 65536, endless=True)
    assert "answered 404" in refusal()


def test_the_body_of_a_redirect_is_not_read(hub: HubServer, commit: str) -> None:
    back = {"Location": f"/{REPO}/resolve/{commit}/config.json"}
    hub.fail("/resolve/.*config.json", status=302, headers=back, body=bytes(9999), endless=True)
    assert not pull(MODEL).was_there


def test_redirects_come_to_an_end(hub: HubServer, commit: str) -> None:
    back = {"Location": f"/{REPO}/resolve/{commit}/config.json"}
    hub.fail("/resolve/.*config.json", status=302, headers=back, times=10**6)
    assert "more than 10 redirects" in refusal()


@pytest.mark.parametrize("where", ["/cdn/", "/api/models/"])
def test_compressed_answers_are_refused(hub: HubServer, commit: str, where: str) -> None:
    bomb = gzip.compress(bytes(1 << 20))
    hub.fail(where, status=200, headers={"Content-Encoding": "gzip"}, body=bomb)
    assert "compressed, which it was asked not to" in refusal()


@pytest.mark.parametrize(
    ("where", "what"),
    [("/cdn/", {"delay": 3600.0}), ("/api/models/", {"status": 200, "endless": True})],
)
def test_what_is_too_slow_is_given_up(
    hub: HubServer,
    commit: str,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    what: dict[str, object],
) -> None:
    monkeypatch.setattr(hub_client, "PORTION_SECONDS", 0.5)
    hub.fail(where, **{"delay": 0.01, **what})
    assert "slower than 1 MiB in 0.5 s; pull again to resume" in refusal()


def test_a_line_that_is_cut_often_comes_to_its_end(hub: HubServer, commit: str) -> None:
    hub.fail("/cdn/", cut_after=4000, times=20)
    assert not pull(MODEL).was_there
    ranges = [seen.range for seen in hub.requests("/cdn/")]
    assert ranges[1:4] == ["bytes=4000-", "bytes=8000-", "bytes=12000-"]


def test_another_part_than_was_asked_for_is_refused(hub: HubServer, commit: str) -> None:
    hub.fail("/cdn/", truncate_to=1000)
    assert "should be of size" in refusal()
    hub.fail("/cdn/", status=206, headers={"Content-Range": "bytes 0-9/10"})
    assert "another part of model.safetensors" in refusal()


def test_a_hub_without_ranges_sends_the_whole_again(
    hub: HubServer, commit: str, sources: Path
) -> None:
    hub.fail("/cdn/", truncate_to=1000)
    refusal()
    hub.fail("/cdn/", status=200, body=(sources / "a" / WEIGHTS).read_bytes())
    assert not pull(MODEL).was_there


def test_a_hub_that_begins_again_and_again_is_given_up(hub: HubServer, commit: str) -> None:
    """Each time with a little more, which is no failed try."""
    for length in range(1000, 9000, 1000):
        long = {"Content-Length": "16384"}
        hub.fail("/cdn/", status=200, headers=long, body=bytes(length))
    assert "begins model.safetensors of" in refusal()
    assert len(hub.requests("/cdn/")) == 6


def test_an_answer_about_another_commit_is_refused(hub: HubServer, commit: str) -> None:
    other = hub.folder.refs(REPO)["main"]
    answer = json.dumps({"sha": other, "siblings": []}).encode()
    hub.fail(f"/revision/{commit}", status=200, body=answer)
    assert f"@{commit}, the hub answers about the commit {other}" in refusal()
    assert not hub.requests("/resolve/")


def test_a_link_in_the_way_of_a_download_is_not_followed(
    hub: HubServer, commit: str, tmp_path: Path
) -> None:
    """Of another user, where HF_HOME is shared."""
    mine = tmp_path / "mine"
    mine.write_text("dear diary")
    part("config.json", commit).parent.mkdir(parents=True)
    part("config.json", commit).symlink_to(mine)
    assert "config.json of pythia-14m" in refusal()
    assert mine.read_text() == "dear diary"


@pytest.fixture
def fork(hub: HubServer, commit: str, sources: Path) -> str:
    """Another's repository of the same name, with other files at the same commit."""
    return hub.folder.commit(FORK.repository, "main", sources / "b", commit)


@pytest.mark.parametrize("first", [MODEL, FORK])
def test_repositories_of_one_name_and_commit_lie_side_by_side(
    hub: HubServer, commit: str, fork: str, first: ModelId
) -> None:
    pull(first)
    tags = {pull(model).model.tag for model in (MODEL, FORK)}
    assert tags == {f"pythia-14m-int8:{commit}", f"someone--pythia-14m-int8:{commit}"}
    assert locate(MODEL, Lock()).origin.files != locate(FORK, Lock()).origin.files
    assert locate(MODEL.at(commit), Lock()).origin.repository == REPO
    assert verify(Lock(), ask_hub=False) == []


@pytest.fixture
def old_entry(hub: HubServer, bento_home: Path, commit: str, fork: str) -> Path:
    """The fork under the name that it had before."""
    pull(FORK)
    models = bento_home / "models"
    (models / "someone--pythia-14m-int8").rename(models / "pythia-14m-int8")
    return models / "pythia-14m-int8" / commit


def test_models_under_their_old_names_are_found(old_entry: Path, fork: str) -> None:
    assert pull(FORK).was_there
    for model in (FORK, FORK.at(fork)):
        assert locate(model, Lock()).path == old_entry
    shutil.rmtree(old_entry.parents[2] / "pythia-bento" / "refs")
    assert locate(FORK, Lock()).path == old_entry


def test_an_old_name_in_the_way_is_told_and_nothing_deleted(
    hub: HubServer, old_entry: Path, commit: str
) -> None:
    before = sorted(old_entry.iterdir())
    with pytest.raises(CheckpointError, match=r"is someone/pythia-14m.*`bentoml models delete py"):
        pull(MODEL)
    assert sorted(old_entry.iterdir()) == before
    assert not hub.requests("/resolve/" + commit, "EleutherAI")


def test_what_others_put_into_the_store_is_kept(commit: str, bento_home: Path) -> None:
    stored = pull(MODEL).model.path
    (stored / "thesis.tex").write_text("two years of work")
    assert not pull(MODEL).was_there
    assert verify(Lock(), ask_hub=False) == []
    [kept] = (bento_home / "pythia-bento" / "set-aside").iterdir()
    assert (kept / "thesis.tex").read_text() == "two years of work"


@pytest.mark.parametrize(
    "text", ["", "null", "[[[", "[]", "{}", '{"model": {"type": "WordPiece"}}']
)
def test_a_tokenizer_that_can_never_be_served_is_not_stored(
    hub: HubServer, bento_home: Path, sources: Path, tmp_path: Path, text: str
) -> None:
    source = shutil.copytree(sources / "a", tmp_path / "odd")
    (source / "tokenizer.json").write_text(text)
    hub.folder.commit(REPO, "step3000", source)
    assert "tokenizer.json" in refusal()
