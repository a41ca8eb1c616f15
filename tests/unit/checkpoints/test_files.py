"""Hashes of files, and what is said where they differ."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pythia_bento.checkpoints.files import FileHash, RemoteFile, check, differences, hash_files

A, B = "0" * 63 + "1", "1" * 64
CONTENT = b"some content\n"
HASH = FileHash(sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))
BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "config.json"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def test_differences_name_the_file() -> None:
    expected = {"config.json": FileHash(sha256=A, size=3), "x.safetensors": FileHash(sha256=B)}
    assert differences(expected, expected) == []
    assert differences(expected, {**expected, "more": FileHash(sha256=A)}) == []
    assert differences(expected, {"x.safetensors": expected["x.safetensors"]}) == [
        "config.json is missing"
    ]
    changed = {**expected, "x.safetensors": FileHash(sha256=A)}
    assert differences(expected, changed) == [f"x.safetensors has sha256 {A}, not {B}"]
    longer = {**expected, "config.json": FileHash(sha256=A, size=4)}
    assert differences(expected, longer) == ["config.json is 4 bytes long, not 3"]


def test_a_directory_is_compared_with_what_is_expected(path: Path) -> None:
    assert check(path.parent, {"config.json": HASH}) == []
    assert check(path.parent, {"config.json": FileHash(sha256=HASH.sha256)}) == []
    other = FileHash(sha256=A, size=HASH.size)
    assert check(path.parent, {"config.json": other, "absent": HASH}) == [
        f"config.json has sha256 {HASH.sha256}, not {A}",
        "absent is missing",
    ]
    assert check(path.parent / "absent", {"config.json": HASH}) == ["config.json is missing"]


def test_names_lead_to_no_other_directory(path: Path) -> None:
    (path.parent.parent / "secret").write_bytes(CONTENT)
    names = ["config.json", "../secret", str(path), "./config.json/../config.json"]
    assert hash_files(path.parent, names) == {"config.json": HASH}


@pytest.mark.parametrize(
    ("hash", "blob_id", "is_right"),
    [
        (HASH, None, True),
        (FileHash(sha256=A, size=len(CONTENT)), None, False),
        (None, BLOB, True),
        (None, "0" * 40, False),
    ],
)
def test_copies_are_compared_with_what_the_hub_tells(
    path: Path, hash: FileHash | None, blob_id: str | None, is_right: bool
) -> None:
    file = RemoteFile("config.json", len(CONTENT), hash, blob_id)
    assert file.verified(path) == (HASH if is_right else None)
    path.write_bytes(CONTENT + b"more")
    assert file.verified(path) is None
