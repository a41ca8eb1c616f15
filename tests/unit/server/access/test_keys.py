from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydantic import SecretStr

from pythia_bento.server.access.keys import ApiKey, digest, new_key, read_keys
from pythia_bento.settings import Settings, SettingsError, load_settings

KEY, OTHER = "a-key-of-16-or-more", "another-key-of-many-letters"


def settings(keys: str | None = None, file: Path | None = None) -> Settings:
    return Settings(
        api_keys=None if keys is None else SecretStr(keys),
        api_keys_file=None if file is None else str(file),
    )


def test_no_setting_is_no_keys() -> None:
    assert read_keys(settings()) is None


def test_entries_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = hashlib.sha256(OTHER.encode()).hexdigest()
    entries = f"{KEY}, bob sha256:{hashed.upper()},\n carol {new_key()} suspended,"
    monkeypatch.setenv("PYTHIA_API_KEYS", entries)
    first, bob, carol = read_keys(load_settings()) or ()
    assert first == ApiKey(f"key-{digest(KEY).hex()[:8]}", digest(KEY))
    assert bob == ApiKey("bob", bytes.fromhex(hashed))
    assert (carol.name, carol.suspended) == ("carol", True)


def test_a_file_with_comments_joins_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    bob = ApiKey.named("bob", digest(OTHER), suspended=True)
    file.write_text(f"# who may ask\n\n{bob.entry}  # until May\nal#ice-has-a-number-sign\n")
    keys = read_keys(settings(KEY, file)) or ()
    assert keys[1] == bob
    assert keys[2].digest == digest("al#ice-has-a-number-sign")
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("", "PYTHIA_API_KEYS is set but holds no key"),
        (" , ", "PYTHIA_API_KEYS is set but holds no key"),
        (f"{KEY}, too-short", "entry 2 has a key that is not 16 or more ASCII characters"),
        (f"{KEY}é", "entry 1 has a key that is not 16 or more"),
        ("sha256:1234", "entry 1 has a hash that is not sha256: and 64 hex digits"),
        (f"a b {KEY}", "entry 1 must be: [name] key [suspended]"),
        (f"a/b {KEY}", "entry 1: the name of a key must be 1 to 64 letters"),
        (f"a {KEY}, a {OTHER}", "two entries of the API keys have the same name"),
        (f"a {KEY}, b {KEY}", "two entries of the API keys have the same key"),
        ("suspended", "entry 1 has a key that is not 16"),
    ],
)
def test_bad_entries_are_named_by_place_and_never_shown(entries: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_keys(settings(entries))
    assert words in caught.value.message
    for secret in (KEY, OTHER, "too-short", "1234"):
        assert secret not in caught.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be read: No such file"):
        read_keys(settings(file=tmp_path / "none"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"cannot be read: not UTF-8"):
        read_keys(settings(file=tmp_path / "binary"))
    (tmp_path / "empty").write_text("# nobody yet\n")
    with pytest.raises(SettingsError, match=r"FILE is set but holds no key"):
        read_keys(settings(file=tmp_path / "empty"))


def test_keys_are_not_shown_and_no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEY not in repr(settings(KEY))
    with pytest.raises(SettingsError, match="api_keys is no argument"):
        load_settings({"api_keys": KEY})


def test_new_keys_are_accepted_and_differ() -> None:
    keys = {new_key() for _ in range(20)}
    assert len(read_keys(settings(",".join(keys))) or ()) == len(keys) == 20
