"""The hub of the tests answers the real client as the real hub would."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub import HubServer

REPO = "EleutherAI/pythia-14m"
WEIGHTS = bytes(range(256)) * 400


@pytest.fixture
def commit(hub: HubServer, tmp_path: Path) -> str:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(WEIGHTS)
    return hub.folder.commit(REPO, "step3000", source)


def test_metadata_names_commit_sizes_and_hashes(hub: HubServer, commit: str) -> None:
    info = HfApi().model_info(REPO, revision="step3000", files_metadata=True)
    config, weights = info.siblings or ()
    assert info.sha == commit
    assert (config.size, config.blob_id) == (2, "9e26dfeeb6e641a33dae4961196235bdb965b21b")
    assert weights.lfs is not None and weights.lfs.size == len(WEIGHTS)
    assert [b.target_commit for b in HfApi().list_repo_refs(REPO).branches] == [commit]
    assert len(list(HfApi().list_repo_tree(REPO, revision=commit))) == 2


def test_client_downloads_a_snapshot(hub: HubServer, commit: str, tmp_path: Path) -> None:
    path = Path(snapshot_download(REPO, revision="step3000", cache_dir=tmp_path / "cache"))
    assert path.name == commit
    assert (path / "model.safetensors").read_bytes() == WEIGHTS


def test_token_stays_with_the_hub(hub: HubServer, commit: str, tmp_path: Path) -> None:
    hub.tokens[REPO] = "secret"
    with pytest.raises(GatedRepoError):
        HfApi().model_info(REPO, revision=commit)
    hf_hub_download(REPO, "model.safetensors", revision=commit, token="secret", cache_dir=tmp_path)
    assert {seen.authorization for seen in hub.requests("/cdn/")} == {None}


def test_what_does_not_exist_is_told_apart(hub: HubServer, commit: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        HfApi().model_info("EleutherAI/pythia-15m")
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info(REPO, revision="step3001")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "absent", revision=commit, cache_dir=tmp_path)


def test_client_resumes_after_a_cut(hub: HubServer, commit: str, tmp_path: Path) -> None:
    hub.fail("/cdn/", cut_after=50_000)
    path = hf_hub_download(REPO, "model.safetensors", revision=commit, cache_dir=tmp_path)
    assert Path(path).read_bytes() == WEIGHTS
    assert [seen.range for seen in hub.requests("/cdn/")] == [None, "bytes=49152-"]


def test_faults_are_served_once(hub: HubServer, commit: str) -> None:
    url = f"{hub.endpoint}/{REPO}/resolve/{commit}/model.safetensors"
    hub.fail("/resolve/", status=429, headers={"Retry-After": "7"})
    hub.fail("/cdn/", flip_at=3)
    hub.fail("/cdn/", truncate_to=100)
    refused = httpx2.get(url)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert httpx2.get(url, follow_redirects=True).content == b"\0\1\2\xfc" + WEIGHTS[4:]
    assert httpx2.get(url, follow_redirects=True).content == WEIGHTS[:100]
    assert httpx2.get(url, follow_redirects=True).content == WEIGHTS
