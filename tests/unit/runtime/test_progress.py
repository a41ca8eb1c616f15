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


def test_bytes_have_a_unit_and_a_speed(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBars() as bars:
        bars.bytes("downloading toy", 1_500_000, 3_000_000)
        bars.bytes("downloading toy", 3_000_000, 3_000_000)
        bars("quantising", 4, 4)
    downloading, quantising = capsys.readouterr().err.splitlines()[-2:]
    assert "3.0/3.0 MB" in downloading and "B/s" in downloading
    assert "4/4" in quantising and "B/s" not in quantising


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
