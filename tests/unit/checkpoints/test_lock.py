from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from pythia_bento.catalog import ModelId, parse
from pythia_bento.checkpoints.files import FileHash
from pythia_bento.checkpoints.lock import Lock, PinnedModel
from pythia_bento.errors import CheckpointError

ROOT = Path(__file__).parents[3]
NAME = parse("pythia-14m@step3000")
A, B = "0" * 63 + "1", "1" * 64  # YAML would read both as numbers
PIN = PinnedModel(
    repository=NAME.repository,
    revision=NAME.revision,
    commit="1234567890" * 4,
    files={"config.json": FileHash(sha256=A, size=3), "x.safetensors": FileHash(sha256=B)},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pythia.lock"
    lock = Lock().pinning(NAME, PIN)
    lock.write(path)
    assert Lock.read(path) == lock
    assert path.read_text().startswith("# ")
    assert "int8: {}" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444
    assert [p.name for p in tmp_path.iterdir()] == ["pythia.lock"]


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pythia.lock"
    other, of_other = parse("pythia-14m"), PIN.model_copy(update={"revision": "main"})
    Lock().pinning(NAME, PIN).pinning(other, of_other).write(path)
    before = path.read_text()
    Lock.read(path).write(path)
    Lock().pinning(other, of_other).pinning(NAME, PIN).write(tmp_path / "b")
    assert path.read_text() == before == (tmp_path / "b").read_text()


def test_pins_are_found_by_id_and_by_commit() -> None:
    lock = Lock().pinning(NAME, PIN)
    assert lock.get(NAME) == PIN
    assert lock.get(NAME.at(PIN.commit)) == PIN
    assert lock.get(NAME.at("main")) is None
    assert lock.get(ModelId("Someone/pythia-14m", PIN.commit)) is None


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert Lock.read(tmp_path / "absent") == Lock()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"commit": "main"}, "commit"),
        ({"commit": "A" * 40}, "commit"),
        ({"files": {"x": {"sha256": "12"}}}, "files.x.sha256"),
        ({"files": {"x": {"sha256": A, "size": -1}}}, "files.x.size"),
        ({"files": {"x": {"sha256": A, "size": "3"}}}, "files.x.size"),
        ({"files": {"x": {"sha256": A, "size": True}}}, "files.x.size"),
        ({"files": {"../x": {"sha256": A}}}, "files.../x.*"),
        ({"int8": {"a/b": {"sha256": A}}}, "int8.a/b.*"),
        ({"repository": "../x"}, "repository"),
        ({"revision": "a/b"}, "revision"),
        ({"quantization": "int4"}, "quantization"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_nonsense_is_named(tmp_path: Path, change: dict[str, object], place: str) -> None:
    path = tmp_path / "pythia.lock"
    pin = PIN.model_dump(exclude_none=True) | change
    path.write_text(yaml.safe_dump({"version": 1, "models": {str(NAME): pin}}))
    with pytest.raises(CheckpointError, match=f"pythia.lock: models.{NAME}.{place}: "):
        Lock.read(path)


@pytest.mark.parametrize("text", ["[", "version: 2", "", "x", "\x00"])
def test_other_files_are_no_locks(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pythia.lock"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"pythia\.lock"):
        Lock.read(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 5000, "cannot be read as YAML"),
        ("[" * 101 + "]" * 101, "more than 100 levels deep"),
        ("a: &x [1]\nb: *x", "alias"),
        ("!!python/object/apply:os.system [id]", "cannot be read as YAML"),
        ("version: !!bool x", "cannot be read as YAML"),
        ("version: !!timestamp x", "cannot be read as YAML"),
        (f"version: {'1' * 5000}", "cannot be read as YAML"),
        ("version: '1'", "version"),
        ("version: true", "version"),
        ("models: {pythia-15m: {}}", "models"),
        ("models: []", "models"),
        ("&a {version: 1, models: {? [1] : 2}}", "pythia.lock"),
    ],
)
def test_what_yaml_can_hide_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "pythia.lock"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=words) as caught:
        Lock.read(path)
    assert "\n" not in caught.value.message and len(caught.value.message) < 500


@pytest.mark.parametrize("id", ["pythia-31m@step3000", "pythia-14m", "Someone/x@step3000"])
def test_an_id_pins_its_own_repository_and_revision(tmp_path: Path, id: str) -> None:
    path = tmp_path / "pythia.lock"
    path.write_text(yaml.safe_dump({"models": {id: PIN.model_dump(exclude_none=True)}}))
    with pytest.raises(CheckpointError, match="which has another id"):
        Lock.read(path)


def test_an_id_has_one_spelling(tmp_path: Path) -> None:
    path = tmp_path / "pythia.lock"
    pin = PIN.model_dump(exclude_none=True)
    path.write_text(yaml.safe_dump({"models": {f"EleutherAI/{NAME}": pin}}))
    with pytest.raises(CheckpointError, match=f"must be written '{NAME}'"):
        Lock.read(path)


def test_the_shipped_lock_pins_what_the_hub_was_seen_to_hold(tmp_path: Path) -> None:
    lock = Lock.read(ROOT / "pythia.lock")
    assert list(lock.models) == ["pythia-1b-deduped", "pythia-1b-deduped@step143000"]
    main, last = lock.models.values()
    assert main.commit == "7199d8fc61a6d565cd1f3c62bf11525b563e13b2"
    assert last.commit == "d1988145ec1cf1e76d786cd05af9f53e8b1c95cc"
    # Main carries buffers that the last step does not: in each of 16 layers a mask of 2048 x 2048
    # bytes, and some hundred bytes of header.
    sizes = [pin.files["model.safetensors"].size or 0 for pin in (main, last)]
    assert 0 < sizes[0] - sizes[1] - 16 * 2048 * 2048 < 16 * 500
    lock.write(tmp_path / "again")
    assert (tmp_path / "again").read_text() == (ROOT / "pythia.lock").read_text()
    assert "://" not in (ROOT / "pythia.lock").read_text()
