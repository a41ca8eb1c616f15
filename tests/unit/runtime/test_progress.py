from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from pythia_bento.runtime.progress import ProgressBars


def test_the_last_state_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBars() as bars:
        for done in (1, 2):
            bars("loading toy", done, 2)
    assert "loading toy" in capsys.readouterr().err


class Full(io.StringIO):
    """A file on a disk without room."""

    refused = 0

    def write(self, text: str) -> int:
        self.refused += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> None:
        self.write("")


def test_no_room_for_bars_does_not_stop_what_they_show(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Full()
    monkeypatch.setattr(sys, "stderr", full)
    with ProgressBars() as bars:
        bars("loading toy", 1, 1)
    assert full.refused
