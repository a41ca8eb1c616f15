"""The last words of a server that cannot have its port."""

from __future__ import annotations

import errno
import sys

import pytest

from pythia_bento.server.bentoml import start_errors


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES])
def test_an_address_that_cannot_be_had_is_one_line(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    start_errors.last_words(sys.__excepthook__, OSError, OSError(number, "x"), None)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("pythia-bento: the address to serve HTTP on is")


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError(errno.EACCES, "x", "a file"), OSError()]
)
def test_all_else_is_told_as_before(error: Exception) -> None:
    told: list[object] = []
    start_errors.last_words(lambda *what: told.extend(what), type(error), error, None)
    assert told == [type(error), error, None]


@pytest.mark.parametrize("command", ["/usr/bin/bentoml", "/usr/lib/bentoml/__main__.py"])
def test_only_bentomls_command_is_changed(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    before = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", before)
    monkeypatch.setattr(sys, "argv", ["/usr/lib/mine/__main__.py"])
    start_errors.install()
    assert sys.excepthook is before
    monkeypatch.setattr(sys, "argv", [command, "serve"])
    start_errors.install()
    assert sys.excepthook is not before
