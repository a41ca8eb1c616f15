"""What one server may be asked for: ids, neighbours, shapes, and a store that changes meanwhile."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pythia_bento.catalog import int8_bytes, parse
from pythia_bento.checkpoints import shelf as shelf_module
from pythia_bento.checkpoints import shelf_sources, store
from pythia_bento.checkpoints.bundle import list_bundled
from pythia_bento.checkpoints.checkpoint import load_checkpoint
from pythia_bento.checkpoints.files import FileHash, hash_files, weights_sha256
from pythia_bento.checkpoints.lock import LOCK, Lock
from pythia_bento.checkpoints.pull import pull
from pythia_bento.checkpoints.resolve import find as find_stored
from pythia_bento.checkpoints.resolve import make_pin
from pythia_bento.checkpoints.shelf import Shelf, ShelfEntry, entry_of
from pythia_bento.checkpoints.stored_model import Origin, StoredModel
from pythia_bento.errors import CheckpointError, InvalidRequest, ModelNotFound, PythiaError
from tests.integration.conftest import bento_home_in, hub_in
from tests.models import random_checkpoint

ALL = "pythia-14m@*"
Put = Callable[..., StoredModel]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty store, looked at again on every miss, and a directory without a lock."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shelf_module, "SCAN_SECONDS", 0.0)
    with bento_home_in(tmp_path) as path:
        yield path


@pytest.fixture
def put(home: Path, original: Path, tmp_path: Path) -> Put:
    """Puts models into the store as a pull does; ``weights`` are equal where their name is."""

    def put(id: str, commit: str, weights: str = "", source: Path = original) -> StoredModel:
        model, files = parse(id), Path(shutil.copytree(source, tmp_path / "files"))
        tensors = load_file(files / "model.safetensors")
        save_file(tensors, files / "model.safetensors", {"of": weights or id})
        origin = Origin(
            repository=model.repository,
            revision=model.revision,
            commit=commit * 40,
            quantization="int8 by row",
            source_files={},
            files=hash_files(files, [path.name for path in files.iterdir()]),
            versions={},
            same_weights=["step7"],
        )
        stored = store.insert(model, origin, files, {})
        store.record_branch(model, origin.commit)
        shutil.rmtree(files)
        return stored

    return put


def default(id: str) -> ShelfEntry:
    return entry_of(load_checkpoint(id))


def ids(shelf: Shelf) -> list[str]:
    return [entry.name for entry in shelf.entries()]


def refusal(shelf: Shelf, name: str, kind: type[PythiaError] = ModelNotFound) -> str:
    with pytest.raises(kind) as caught:
        shelf.find(name)
    assert type(caught.value) is kind
    assert caught.value.param == "model"
    return caught.value.message


def test_one_bundled_step_alone() -> None:
    shelf = Shelf(default("bundled@step512"), "")
    assert ids(shelf) == ["bundled@step512"]
    own = shelf.default
    assert [shelf.find(name) for name in own.names] == [own] * 3
    assert own.names[-1] == "bundled"  # as a server of one model has it
    assert refusal(shelf, "bundled@step256") == (
        "model 'bundled@step256' is not served here; the nearest names are bundled@step512, bundled"
    )
    assert "'bundeld' is not served here; the nearest names are bundled" in refusal(
        shelf, "bundeld"
    )


def test_all_bundled_steps() -> None:
    shelf = Shelf(default("bundled@step512"), "bundled@*")
    steps = ["step512", "step0", "step64", "step256", "step1000", "step3000"]
    assert ids(shelf) == [f"bundled@{step}" for step in steps]
    for step in list_bundled():
        found, loaded = shelf.find(step.model_id), load_checkpoint(step.model_id)
        assert found.names[:2] == (step.model_id, f"bundled@{step.commit}")
        assert (found.files, found.config, found.path) == (
            loaded.files,
            loaded.config,
            loaded.path,
        )
        assert found.quantization == loaded.quantization
        assert found.weights == weights_sha256(loaded.files)
        assert found.nbytes == int8_bytes(loaded.config)
        assert found.step == int(step.step.removeprefix("step"))
        assert found.created == int(loaded.tokenizer_path.stat().st_mtime)
        assert pickle.loads(pickle.dumps(found)) == found


def test_the_bare_name_means_main_where_main_is_on_the_shelf() -> None:
    shelf = Shelf(default("bundled@step512"), "bundled@*")
    assert shelf.find("bundled").name == shelf.find("bundled@main").name == "bundled@step3000"
    assert "bundled" not in shelf.default.names
    few = Shelf(default("bundled@step512"), "bundled@step0")
    assert few.find("bundled") is few.default
    main = Shelf(default("bundled"), "bundled@*")
    assert main.find("bundled") is main.default is main.find("bundled@step3000")
    assert len(main.entries()) == 6


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("step600", "are bundled@step256 and bundled@step512"),
        ("step2000", "are bundled@step1000 and bundled@step3000"),
        ("step999999999", "are bundled@step1000 and bundled@step3000"),
    ],
)
def test_a_step_that_is_not_there_gets_the_nearest_by_number(asked: str, near: str) -> None:
    shelf = Shelf(default("bundled"), "bundled@*")
    message = f"bundled@{asked} is not served here; the nearest {near}"
    assert refusal(shelf, f"bundled@{asked}") == message
    two = Shelf(default("bundled"), "bundled@step64")
    assert refusal(two, "bundled@step65").endswith("bundled@step64 and bundled@step3000")


def test_pulled_steps_by_all_their_ids(put: Put) -> None:
    put("pythia-14m@step512", "a")
    put("pythia-14m@step1000", "b")
    put("pythia-14m", "c")
    put("pythia-14m@step143000", "d")
    shelf = Shelf(default("pythia-14m@step1000"), ALL)
    names = [
        "pythia-14m@step1000",
        "pythia-14m@step512",
        "pythia-14m@main",
        "pythia-14m@step143000",
    ]
    assert ids(shelf) == names
    assert [entry.step for entry in shelf.entries()] == [1000, 512, 143000, 143000]
    for entry in shelf.entries():
        assert set(entry.names) >= {
            f"{owner}pythia-14m@{revision}"
            for owner in ("", "EleutherAI/")
            for revision in (entry.commit, entry.name.partition("@")[2])
        }
        assert all(shelf.find(name) is entry for name in entry.names)
    loaded = load_checkpoint("pythia-14m@step512")
    found, same = shelf.find("pythia-14m@step512"), entry_of(loaded)
    assert set(same.names) - set(found.names) == {"pythia-14m", "EleutherAI/pythia-14m"}
    assert found.named(same.names) == same
    assert entry_of(load_checkpoint("pythia-14m")).names == shelf.find("pythia-14m").names


def test_what_patterns_do_not_match_is_not_served(put: Put) -> None:
    put("pythia-14m@step512", "a")
    put("pythia-14m@step1000", "b")
    put("someone/pythia-14m@step512", "c")
    shelf = Shelf(default("pythia-14m@step512"), "bundled@*, pythia-14m@step5*")
    assert ids(shelf) == ["pythia-14m@step512"]
    for id in ("pythia-14m@step1000", "someone/pythia-14m@step512"):
        assert "is not served here" in refusal(shelf, id)


def test_equal_weights_are_one_entry(put: Put) -> None:
    put("pythia-14m@step0", "a", "same")
    put("pythia-14m@step1", "b", "same")
    put("pythia-14m@step2", "c")
    shelf = Shelf(default("pythia-14m@step2"), ALL)
    assert ids(shelf) == ["pythia-14m@step2", "pythia-14m@step0"]
    twin = shelf.find("pythia-14m@step1")
    assert twin is shelf.find("EleutherAI/pythia-14m@step0") is shelf.find(f"pythia-14m@{'b' * 40}")
    assert twin.same_weights == ("step7",)
    other = Shelf(default("pythia-14m@step1"), ALL)
    assert other.find("pythia-14m@step0") is other.default
    assert other.default.name == "pythia-14m@step1"


def test_what_is_not_pulled_yet_and_what_comes_later(put: Put) -> None:
    put("pythia-14m@step512", "a")
    shelf = Shelf(default("pythia-14m@step512"), ALL)
    assert refusal(shelf, "pythia-14m@step1000") == (
        "pythia-14m@step1000 is not in the store; `pythia-bento pull pythia-14m@step1000` brings "
        "it there"
    )
    assert refusal(shelf, "pythia-14m").startswith("pythia-14m is not in the store")
    put("pythia-14m@step1000", "b")
    assert shelf.find("pythia-14m@step1000").commit == "b" * 40
    put("pythia-14m@step2", "c")
    assert "pythia-14m@step2" in ids(shelf)


def test_a_hit_does_not_look_and_a_miss_looks_once_a_second(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("pythia-14m@step512", "a")
    shelf, now = Shelf(default("pythia-14m@step512"), ALL), [1000.0]
    monkeypatch.setattr(shelf_module, "SCAN_SECONDS", 1.0)
    monkeypatch.setattr(shelf_module.time, "monotonic", lambda: now[0])
    shelf.rescan()
    looked: list[str] = []
    places = store.places
    monkeypatch.setattr(store, "places", lambda model: looked.append(str(model)) or places(model))
    for _ in range(20):
        shelf.find("pythia-14m@step512")
        refusal(shelf, "pythia-14m@step1000")
    assert looked == []
    now[0] += 1
    for _ in range(20):
        refusal(shelf, "pythia-14m@step1000")
    assert len(looked) == 1


def test_metadata_is_read_once_for_each_change(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put("pythia-14m@step512", "a")
    put("pythia-14m@step1000", "b")
    read: list[Path] = []
    inner = shelf_sources._read
    monkeypatch.setattr(shelf_sources, "_read", lambda path: read.append(path) or inner(path))
    shelf = Shelf(default("pythia-14m@step512"), ALL)
    for _ in range(5):
        shelf.rescan()
    assert len(read) == 2
    put("pythia-14m@step2", "c")
    shelf.rescan()
    assert len(read) == 3


def test_a_model_of_another_shape_is_refused_and_not_listed(put: Put, tmp_path: Path) -> None:
    put("pythia-14m@step512", "a")
    shape = {"layers": 1, "heads": 2}
    put("pythia-14m@step1", "b", source=random_checkpoint(tmp_path / "flat", **shape))
    longer = random_checkpoint(tmp_path / "long", heads=2, positions=512)
    put("pythia-14m@step2", "c", source=longer)
    shelf = Shelf(default("pythia-14m@step512"), f"{ALL}, bundled@*, pythia-70m@*")
    assert ids(shelf) == ["pythia-14m@step512"]
    one_shape = "; one server serves checkpoints of one shape"
    for id, words in {
        "pythia-14m@step1": "has 1 layers of 64, but this server computes 2 layers of 64",
        "pythia-14m@step2": "has max_positions 512, but this server computes 256",
        "bundled@step512": "has 3 layers of 128, but this server computes 2 layers of 64",
        "pythia-70m@step3000": "has 6 layers of 512, but this server computes 2 layers of 64",
    }.items():
        assert refusal(shelf, id, InvalidRequest) == f"{id} {words}{one_shape}"


def test_the_lock_decides_what_an_id_is(put: Put, caplog: pytest.LogCaptureFixture) -> None:
    put("pythia-14m@step512", "a")
    put("pythia-14m@step1", "b", "of b")
    model = parse("pythia-14m@step1")
    pin = make_pin(model.at("b" * 40)).model_copy(update={"revision": "step1"})
    put("pythia-14m@step1", "c")
    shelf = Shelf(default("pythia-14m@step512"), ALL)
    assert shelf.find("pythia-14m@step1").commit == "c" * 40
    Lock().pinning(model, pin).write()
    shelf.rescan()
    assert shelf.find("pythia-14m@step1").commit == "b" * 40
    assert shelf.find(f"pythia-14m@{'c' * 40}").names[0] == f"pythia-14m@{'c' * 40}"
    LOCK.write_text("version: 7")
    shelf.rescan()
    assert shelf.find("pythia-14m@step1").commit == "b" * 40  # as it said before
    assert "what it said before holds" in caplog.text
    absent = pin.model_copy(update={"commit": "d" * 40})
    Lock().pinning(model, absent).write()
    shelf.rescan()
    assert f"at the commit {'d' * 40}, which the lock pins, is not in the store" in refusal(
        shelf, "pythia-14m@step1"
    )
    other = pin.model_copy(update={"int8": {"config.json": FileHash(sha256="0" * 64)}})
    Lock().pinning(model, other).write()
    shelf.rescan()
    words = "pythia-14m@step1 will not be served: 8-bit config.json has sha256"
    assert words in refusal(shelf, "pythia-14m@step1", CheckpointError)


def test_branches_mean_what_they_mean_to_a_start(put: Put, home: Path) -> None:
    put("pythia-14m@step512", "a")
    put("pythia-14m@step1", "b")
    put("pythia-14m@step1", "c")
    shelf = Shelf(default("pythia-14m@step512"), ALL)

    def agrees() -> bool:
        shelf.rescan()
        started = find_stored(parse("pythia-14m@step1"), Lock())
        return shelf.find("pythia-14m@step1").commit == started.origin.commit

    assert agrees()
    store.record_branch(parse("pythia-14m@step1"), "b" * 40)
    assert agrees() and shelf.find("pythia-14m@step1").commit == "b" * 40
    shutil.rmtree(home / "pythia-bento" / "refs")
    assert agrees()


def _no_metadata(place: Path) -> None:
    (place / "model.yaml").write_text("metadata: [7, &a]")


def _other_config(place: Path) -> None:
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))


def _no_config(place: Path) -> None:
    (place / "config.json").unlink()


def _no_tokenizer(place: Path) -> None:
    (place / "tokenizer.json").unlink()


@pytest.mark.parametrize("damage", [_no_metadata, _other_config, _no_config, _no_tokenizer])
def test_a_damaged_model_is_one_line_and_its_own_error(
    put: Put, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    put("pythia-14m@step512", "a")
    damaged = put("pythia-14m@step1", "b")
    shelf = Shelf(default("pythia-14m@step512"), ALL)
    damage(damaged.path)
    with caplog.at_level(logging.WARNING, shelf_module.__name__):
        for _ in range(3):
            shelf.rescan()
            assert ids(shelf) == ["pythia-14m@step512"]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("not on the shelf: ")
    refusal(shelf, "pythia-14m@step1", CheckpointError)
    refusal(shelf, f"pythia-14m@{'b' * 40}", CheckpointError)


def test_a_model_that_vanishes_is_gone(put: Put) -> None:
    put("pythia-14m@step512", "a")
    gone = put("pythia-14m@step1", "b")
    shelf = Shelf(default("pythia-14m@step512"), ALL)
    (gone.path / "model.yaml").unlink()  # as BentoML leaves half a model
    shelf.rescan()
    assert "not in the store" in refusal(shelf, "pythia-14m@step1")
    shutil.rmtree(gone.path.parent)
    shelf.rescan()
    assert ids(shelf) == ["pythia-14m@step512"]  # its own weights are loaded


@pytest.mark.parametrize(
    "name",
    ["", "@", "bundled@../../etc/passwd", "../x", "a/../b", "bundled@\0", "x" * 10**6, "\ud800"],
)
def test_odd_names_reach_no_file(name: str) -> None:
    shelf = Shelf(default("bundled"), "bundled@*")
    assert len(refusal(shelf, name)) < 400


def test_a_local_directory_is_an_entry_of_its_own_name(copy: Path) -> None:
    own = default(str(copy))
    assert (own.name, own.names, own.step, own.commit) == ("copy", ("copy",), None, None)
    shelf = Shelf(own, "bundled@*")
    assert shelf.find("copy") is shelf.default
    assert ids(shelf) == ["copy"]


def test_many_threads_may_ask_while_the_store_changes(put: Put) -> None:
    put("pythia-14m@step512", "a")
    shelf = Shelf(default("pythia-14m@step512"), ALL)
    is_over, failed = threading.Event(), []

    def ask() -> None:
        while not is_over.wait(0.001):
            try:
                shelf.entries()
                shelf.find("pythia-14m@step1")
            except (ModelNotFound, CheckpointError):
                pass
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for commit in "bcd":
        shutil.rmtree(put("pythia-14m@step1", commit).path)
    is_over.set()
    for thread in threads:
        thread.join()
    assert failed == []


def test_what_a_pull_brings_is_what_a_start_finds(
    home: Path, original: Path, tmp_path: Path
) -> None:
    with hub_in(tmp_path) as hub:
        for branch, seed in {"main": 0, "step0": 1, "step1": 1}.items():
            source = random_checkpoint(tmp_path / branch, heads=2, head_dim=16, seed=seed)
            hub.folder.commit("EleutherAI/pythia-14m", branch, source)
            pull(parse(f"pythia-14m@{branch}"))
    shelf = Shelf(default("pythia-14m"), ALL)
    assert ids(shelf) == ["pythia-14m@main", "pythia-14m@step0"]
    for id in ("pythia-14m@main", "pythia-14m@step0", "pythia-14m@step1"):
        found, started = shelf.find(id), entry_of(load_checkpoint(id))
        assert found.weights == started.weights
        assert set(started.names) - {"pythia-14m", "EleutherAI/pythia-14m"} <= set(found.names)
