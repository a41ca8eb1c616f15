"""What is installed for the tests, where it can be. Nothing is installed here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import needs

APT_GET = """#!/bin/sh
echo "$@" >>"$LOG"
case "$*" in *" $FAILS"*) echo Reading; echo "E: no $FAILS today" >&2; exit 100;; esac
"""


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH: all commands that tests need, and an apt-get that writes LOG."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("chromedriver", "chromium", "curl", "promtool", "ssh-keygen"):
        (folder / name).touch(0o755)
    (folder / "apt-get").write_text(APT_GET)
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAILS", "nothing")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return folder


def calls(bin: Path) -> list[str]:
    log = bin.parent / "log"
    return log.read_text().splitlines() if log.exists() else []


def test_nothing_is_done_where_all_is_there(bin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs.install()
    assert (calls(bin), capsys.readouterr().out) == ([], "")


def test_what_is_missing_is_installed(bin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bin / "chromedriver").unlink()
    (bin / "promtool").unlink()
    needs.install()
    update, install = calls(bin)
    assert update.endswith(" update") and install.endswith(" install chromium-driver prometheus")
    assert capsys.readouterr().out == (
        "== apt-get install chromium-driver prometheus: some tests need chromedriver, promtool\n"
    )


def test_what_nobody_names_is_not_installed(bin: Path) -> None:
    needs.install(["npm", "curl"])
    assert [call.split()[-2:] for call in calls(bin)][1:] == [["install", "npm"]]


@pytest.mark.parametrize("fails", ["update", "install"])
def test_a_failure_is_one_line(
    bin: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    (bin / "curl").unlink()
    monkeypatch.setenv("FAILS", fails)
    needs.install()
    assert len(calls(bin)) == 1 + (fails == "install")
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"== tests that need curl are left out: E: no {fails} today"
    ]


@pytest.mark.parametrize("user", [0, 1000])
def test_without_root_or_apt_get_nothing_is_tried(
    bin: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    (bin / "curl").unlink()
    if user:
        monkeypatch.setattr(os, "geteuid", lambda: user)
    else:
        (bin / "apt-get").unlink()
    needs.install()
    assert calls(bin) == []
    assert capsys.readouterr().out == (
        "== tests that need curl are left out: only root can install them, with apt-get\n"
    )


def test_every_need_can_be_looked_up() -> None:
    assert all(isinstance(need.look_up(), bool) for need in needs.NEEDS.values())
