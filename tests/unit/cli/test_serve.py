"""``pythia-bento serve``: what it starts, and what stops it before anything starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import pytest

from pythia_bento.cli import main

SERVE = [sys.executable, "-m", "bentoml", "serve", "pythia_bento.service:Pythia"]


class Started(Exception):
    """In place of the process that would begin."""


@pytest.fixture(autouse=True)
def _start(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def execve(program: str, command: list[str], environment: dict[str, str]) -> NoReturn:
        raise Started(program, command, environment)

    monkeypatch.setattr(os, "execve", execve)
    for name in ("PYTHIA_MODEL", "PYTHIA_GRPC_PORT"):
        monkeypatch.delenv(name, raising=False)
    yield


def test_without_arguments_everything_is_as_the_environment_says() -> None:
    with pytest.raises(Started) as started:
        main(["serve"])
    assert started.value.args == (sys.executable, SERVE, dict(os.environ))


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_MODEL", "bundled@step0")
    options = ("--port", "8000", "--host", "127.0.0.1", "--grpc-port", "0")
    with pytest.raises(Started) as started:
        main(["serve", "bundled@step64", *options])
    _, command, environment = started.value.args
    assert command == [*SERVE, "--port", "8000", "--host", "127.0.0.1"]
    assert environment["PYTHIA_MODEL"] == "bundled@step64"
    assert environment["PYTHIA_GRPC_PORT"] == "0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bundled@step7"], ["step7", "step0"]),
        (["pythia-2b"], ["pythia-2b", "pythia-2.8b"]),
        (["-p", "0"], ["--port", "1<=x<=65535"]),
        (["--grpc-port", "65536"], ["--grpc-port", "0<=x<=65535"]),
        (["bundled", "more"], ["more"]),
        (["--reload"], ["--reload"]),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_starts(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments])
    assert ended.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert all(word in last for word in words), last


def test_a_bad_setting_is_said_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHIA_MAX_N", "0")
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: setting max_n (PYTHIA_MAX_N)")
