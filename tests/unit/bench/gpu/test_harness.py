from __future__ import annotations

import sys

import pytest

from bench.gpu import harness


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        (["--peers", "--out", "/root/x.json"], ["--peers"]),
        (["--out", "x", "--models", "pythia-1b"], ["--models", "pythia-1b"]),
    ],
)
def test_the_recorded_command_names_no_path(
    monkeypatch: pytest.MonkeyPatch, given: list[str], kept: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *given])
    assert harness._options() == kept
