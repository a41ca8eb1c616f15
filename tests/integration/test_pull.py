"""``pull`` against a hub on loopback: what arrives, and what happens when things go wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import bentoml
import pytest
from huggingface_hub import constants, hf_hub_download

from pythia_bento.catalog import parse
from pythia_bento.checkpoints import store
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.files import sha256
from pythia_bento.checkpoints.lock import Lock
from pythia_bento.checkpoints.pull import pull
from pythia_bento.checkpoints.quantize import CheckpointWeights
from pythia_bento.checkpoints.resolve import locate, make_pin, verify
from pythia_bento.checkpoints.save import save_int8
from pythia_bento.errors import CheckpointError, ModelNotFound
from tests.hub import HubServer

REPO = "EleutherAI/pythia-14m"
MODEL = parse("pythia-14m@step3000")
WEIGHTS = "model.safetensors"


@pytest.fixture
def commit(hub: HubServer, bento_home: Path, sources: Path) -> str:
    """``MODEL`` on the hub, beside a ``main`` that is another."""
    hub.folder.commit(REPO, "main", sources / "b")
    return hub.folder.commit(REPO, "step3000", sources / "a")


def nothing_in_store() -> bool:
    return not list(bentoml.models.list()) and not store.stored_models()


def test_stored_model_has_tag_labels_and_provenance(
    hub: HubServer, commit: str, sources: Path
) -> None:
    pulled = pull(MODEL)
    model = bentoml.models.get(f"pythia-14m-int8:{commit}")
    assert pulled.model.tag == str(model.tag) and not pulled.was_there
    assert model.info.labels == {
        "size": "14m",
        "variant": "standard",
        "step": "3000",
        "quantisation": "int8",
    }
    origin = pulled.model.origin
    assert (origin.repository, origin.commit, origin.revision) == (REPO, commit, "step3000")
    assert origin.source_files[WEIGHTS].sha256 == sha256(sources / "a" / WEIGHTS)
    assert origin.files[WEIGHTS].sha256 == sha256(Path(model.path_of(WEIGHTS)))
    assert set(origin.versions) == {"torch", "pythia-bento"}
    assert bentoml.models.get("pythia-14m-int8").tag == model.tag  # the latest


def test_stored_files_are_what_quantising_makes_of_the_originals(
    commit: str, sources: Path, tmp_path: Path
) -> None:
    origin, direct = sources / "a", tmp_path / "direct"
    save_int8(CheckpointWeights(origin, read_config(origin / "config.json")), origin, direct)
    stored = pull(MODEL).model.path
    assert {p.name for p in stored.iterdir()} == {"model.yaml", *(p.name for p in direct.iterdir())}
    assert all(sha256(path) == sha256(stored / path.name) for path in direct.iterdir())


@pytest.mark.parametrize("name", ["pythia-14m", "EleutherAI/pythia-14m@{}", "pythia-14m@{}"])
def test_names_of_every_kind_find_their_commit(hub: HubServer, commit: str, name: str) -> None:
    pulled = pull(parse(name.format(commit)))
    head = hub.folder.refs(REPO)["main"]
    assert pulled.model.origin.commit == (head if name == "pythia-14m" else commit)


def test_only_needed_files_are_downloaded(hub: HubServer, commit: str) -> None:
    pull(MODEL)
    names = {seen.path.rpartition("/")[2] for seen in hub.requests("/resolve/")}
    assert names >= {"config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS}
    assert not names & {"README.md", "pytorch_model.bin", "optimizer.pt"}


def test_nothing_is_left_but_the_stored_model(
    commit: str, bento_home: Path, tmp_path: Path
) -> None:
    pull(MODEL)
    left = [p for home in (bento_home, tmp_path / "hf") for p in home.rglob("*.safetensors")]
    assert left == [bento_home / "models" / "pythia-14m-int8" / commit / WEIGHTS]


def test_second_pull_downloads_nothing(hub: HubServer, commit: str) -> None:
    pull(MODEL)
    path = store.find(MODEL, commit)
    assert path is not None
    before = {p: p.stat().st_mtime_ns for p in path.path.iterdir()}
    hub.seen.clear()
    assert pull(MODEL).was_there
    assert not hub.requests("/resolve/")
    assert before == {p: p.stat().st_mtime_ns for p in path.path.iterdir()}


def test_what_does_not_exist_is_not_found(commit: str) -> None:
    with pytest.raises(ModelNotFound, match="no revision 'step4000' on the hub"):
        pull(parse("pythia-14m@step4000"))
    with pytest.raises(ModelNotFound, match="no repository EleutherAI/pythia-31m"):
        pull(parse("pythia-31m"))
    with pytest.raises(ModelNotFound, match="nearest are"):
        pull(parse("pythia-15m"))
    with pytest.raises(ModelNotFound, match="comes with the package"):
        pull(parse("bundled"))


def test_gated_repository_wants_a_token(
    hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.tokens[REPO] = "hf_secret"
    with pytest.raises(CheckpointError, match="gated"):
        pull(MODEL)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull(MODEL)
    assert {seen.authorization for seen in hub.requests("/cdn/")} == {None}


@pytest.mark.parametrize("damage", [{"flip_at": 900}, {"flip_at": -1}])
@pytest.mark.parametrize("file", ["/cdn/", "/resolve/.*tokenizer.json"])
def test_flipped_byte_is_refused_and_not_kept(
    hub: HubServer, commit: str, file: str, damage: dict[str, int]
) -> None:
    hub.fail(file, **damage)
    with pytest.raises(CheckpointError, match="not what the hub's metadata says"):
        pull(MODEL)
    assert nothing_in_store()
    pull(MODEL)
    assert verify(Lock(), ask_hub=False) == []


def test_truncated_file_is_refused(hub: HubServer, commit: str) -> None:
    hub.fail("/cdn/", truncate_to=1000)
    with pytest.raises(CheckpointError, match="should be of size"):
        pull(MODEL)
    assert nothing_in_store()
    pull(MODEL)
    assert hub.requests("/cdn/")[-1].range == "bytes=1000-"  # what had arrived was right


def test_partial_file_with_wrong_bytes_is_begun_anew(hub: HubServer, commit: str) -> None:
    hub.fail("/cdn/", flip_at=10, truncate_to=1000)
    with pytest.raises(CheckpointError):
        pull(MODEL)
    pull(MODEL)
    assert [seen.range for seen in hub.requests("/cdn/")] == [None, "bytes=1000-", None]


@pytest.mark.parametrize("where", ["/api/models/", "/resolve/.*config.json", "/cdn/"])
@pytest.mark.parametrize("status", [500, 503, 429])
def test_errors_that_pass_are_waited_for(
    hub: HubServer, commit: str, where: str, status: int
) -> None:
    hub.fail(where, status=status, headers={"Retry-After": "0"})
    assert not pull(MODEL).was_there


def test_cut_connection_is_resumed(hub: HubServer, commit: str) -> None:
    hub.fail("/cdn/", cut_after=20_000)
    pull(MODEL)
    assert [seen.range for seen in hub.requests("/cdn/")] == [None, "bytes=20000-"]


def test_500_in_the_middle_is_resumed(hub: HubServer, commit: str) -> None:
    hub.fail("/cdn/", cut_after=20_000)
    hub.fail("/cdn/", status=500)
    pull(MODEL)
    assert hub.requests("/cdn/")[-1].range == "bytes=20000-"


def test_progress_counts_on_after_a_cut(hub: HubServer, commit: str, sources: Path) -> None:
    hub.fail("/cdn/", cut_after=20_000)
    states: list[tuple[str, int, int]] = []
    downloaded: list[tuple[str, int, int]] = []
    found = pull(
        MODEL,
        on_progress=lambda *state: states.append(state),
        on_bytes=lambda *state: downloaded.append(state),
    )
    size = sum(file.size for file in found.model.origin.source_files.values())
    assert {state[0] for state in downloaded} == {f"downloading {MODEL}"}
    assert downloaded == sorted(downloaded)
    assert downloaded[-1][1:] == (size, size) and size > (sources / "a" / WEIGHTS).stat().st_size
    assert states[-1] == ("quantising", 4, 4)


def test_lasting_error_is_named(hub: HubServer, commit: str) -> None:
    hub.fail("/cdn/", status=500, headers={"Retry-After": "0"}, times=99)
    with pytest.raises(CheckpointError, match=r"answered 500 for model.safetensors"):
        pull(MODEL)
    assert nothing_in_store()


def test_damaged_stored_model_is_pulled_anew(commit: str) -> None:
    weights = pull(MODEL).model.path / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert not pull(MODEL).was_there
    assert weights.read_bytes() == whole


def test_half_a_model_is_replaced(commit: str, bento_home: Path) -> None:
    """As BentoML's own import leaves it when it is killed; its commands cannot remove it."""
    half = bento_home / "models" / "pythia-14m-int8" / commit
    half.mkdir(parents=True)
    (half / WEIGHTS).write_bytes(b"half")
    (half / "more").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="is not in the store"):
        locate(MODEL, Lock())
    [line] = verify(Lock(), ask_hub=False)
    assert line == f"pythia-14m-int8:{commit} has no model.yaml; a pull replaces it"
    assert not pull(MODEL).was_there
    assert verify(Lock(), ask_hub=False) == []


def test_model_of_another_maker_is_not_taken_for_ours(commit: str) -> None:
    tag = f"pythia-14m-int8:{commit}"
    with bentoml.models.create(tag, metadata={"repository": REPO}):
        pass
    for act in (pull, lambda model: locate(model, Lock())):
        with pytest.raises(CheckpointError, match=f"`bentoml models delete {tag}` removes it"):
            act(parse(f"pythia-14m@{commit}"))


def test_file_of_the_librarys_cache_is_used_if_it_is_right(
    hub: HubServer, commit: str, bento_home: Path
) -> None:
    cached = Path(hf_hub_download(REPO, WEIGHTS, revision=commit)).resolve()
    hub.seen.clear()
    pull(MODEL)
    assert not hub.requests("/cdn/")
    cached.write_bytes(b"\0" * cached.stat().st_size)
    shutil.rmtree(bento_home / "models" / "pythia-14m-int8")
    pull(MODEL)
    assert len(hub.requests("/cdn/")) == 1
    assert verify(Lock(), ask_hub=False) == []


def test_offline_works_from_the_store(commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(MODEL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(MODEL).was_there
    assert locate(MODEL, Lock()).origin.commit == commit
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        pull(parse("pythia-14m"))


def test_prequantised_copy_is_taken_as_it_is(
    hub: HubServer, bento_home: Path, sources: Path, tmp_path: Path
) -> None:
    copy = "RichardErkhov/EleutherAI_-_pythia-14m-8bits"
    origin, prequantised = sources / "a", tmp_path / "8bits"
    config = read_config(origin / "config.json")
    save_int8(CheckpointWeights(origin, config), origin, prequantised)
    commit = hub.folder.commit(copy, "main", prequantised)
    pulled = pull(parse(copy)).model
    name = "richarderkhov--eleutherai_-_pythia-14m-8bits-"  # and a hash: BentoML has no capitals
    assert pulled.tag.startswith(name) and pulled.tag.endswith(f"-int8:{commit}")
    assert pulled.origin.repository == copy
    assert pulled.origin.quantization == "int8 by row, as in the repository"
    assert pulled.origin.files == pulled.origin.source_files
    assert locate(parse(copy), Lock()).tag == pulled.tag


def test_same_weights_as_main_are_told(hub: HubServer, bento_home: Path, sources: Path) -> None:
    for branch, source in {"main": "a", "step2000": "b", "step3000": "a", "step4000": "b"}.items():
        hub.folder.commit(REPO, branch, sources / source)
    assert pull(MODEL).model.origin.same_weights == ["main"]
    assert pull(parse("pythia-14m@step2000")).model.origin.same_weights == []


def test_pin_of_a_model_not_pulled_is_what_is_pulled_later(hub: HubServer, commit: str) -> None:
    pin = make_pin(MODEL)
    assert not hub.requests("/cdn/")
    lock = Lock().pinning(MODEL, pin)
    assert pull(MODEL, lock).model.origin.source_files == pin.files
    assert make_pin(MODEL).int8[WEIGHTS].size


def test_moved_branch_is_told_and_the_lock_holds(
    hub: HubServer, commit: str, sources: Path
) -> None:
    pull(MODEL)
    lock = Lock().pinning(MODEL, make_pin(MODEL))
    assert verify(lock, ask_hub=True) == []
    moved = hub.folder.commit(REPO, "step3000", sources / "b")
    [line] = verify(lock, ask_hub=True)
    assert f"step3000 has moved to {moved}" in line
    assert pull(MODEL, lock).model.origin.commit == commit
    assert pull(MODEL).model.origin.commit == moved
    assert locate(MODEL, lock).origin.commit == commit
    assert locate(MODEL, Lock()).origin.commit == moved


def test_hub_that_serves_another_content_for_a_commit_is_refused(
    hub: HubServer, commit: str, sources: Path
) -> None:
    lock = Lock().pinning(MODEL, make_pin(MODEL))
    root = hub.folder.root / REPO / "commits" / commit
    hub.folder.forget()
    shutil.copyfile(sources / "b" / WEIGHTS, root / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"not what the lock pins: model.safetensors"):
        pull(MODEL, lock)
    assert nothing_in_store()
    assert any("on the hub model.safetensors has" in line for line in verify(lock, ask_hub=True))


def test_changed_store_is_not_served(commit: str) -> None:
    path = pull(MODEL).model.path
    weights, whole = path / WEIGHTS, (path / WEIGHTS).read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"not be served: .*model.safetensors"):
            locate(MODEL, Lock())
        assert len(verify(Lock(), ask_hub=False)) == 1
    weights.write_bytes(whole)
    (path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is not part of the model"):
        locate(MODEL, Lock())


def test_model_that_was_not_pulled_names_the_command(commit: str) -> None:
    with pytest.raises(CheckpointError, match="`pythia-bento pull pythia-14m@step3000`"):
        locate(parse("EleutherAI/pythia-14m@step3000"), Lock())
