"""Grids of patches, and their pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pythia_bento.client import PatchGrid
from pythia_bento.client.patches import grid
from pythia_bento.errors import InvalidRequest, PythiaError

ASKED = {"site": "blocks.*.hook_resid_pre", "metric": {"logprob": "$x$"}}
BODY: dict[str, Any] = {
    **{"values": [[1, 2, 3.5], [0, 1, 1]], "clean": 3, "corrupted": 1, "layers": [0, 1]},
    **{"positions": [0, 1, 2], "tokens": ["$a$", "_b", "\u4e2d"]},
    **{"model": "toy@step3", "system_fingerprint": "print"},
}


def made(**fields: Any) -> PatchGrid:
    return grid({**BODY, **fields}, ASKED)


def test_values_and_what_they_bring_back() -> None:
    found = made()
    assert found.values.dtype == np.float64 and found.values.shape == (2, 3)
    assert found.recovered.tolist() == [[0, 0.5, 1.25], [-0.5, 0, 0]]
    assert (found.layers, found.positions, found.heads) == ((0, 1), (0, 1, 2), ())
    assert found.metric == "logprob '$x$'"
    assert not np.isfinite(made(clean=1).recovered).any()
    heads = made(positions=None, heads=[4, 5, 6])
    assert (heads.positions, heads.heads) == ((), (4, 5, 6))


@pytest.mark.parametrize(
    "fields", [{"values": [[1, 2]]}, {"values": [[1], [2, 3]]}, {"layers": [0]}, {"clean": "x"}]
)
def test_answers_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        made(**fields)


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_equal_grids_are_equal_pictures(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        made().plot(tmp_path / f"{name}.{suffix}")
    first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("a", "b"))
    assert first == second and len(first) > 1000
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_picture_shows() -> None:
    axes, bar = made().figure().axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0 '$a$'", "1 '_b'", "2 '中'"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1"]
    assert np.array_equal(axes.images[0].get_array(), made().recovered)
    assert bar.get_ylabel() == "logprob '$x$', recovered"
    axes, bar = made(clean=1, positions=None, heads=[0, 1, 2]).figure().axes
    assert axes.get_xlabel() == "head" and bar.get_ylabel() == "logprob '$x$'"
    assert np.array_equal(axes.images[0].get_array(), made().values)


def test_pictures_that_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match=r"a\.svg must end in \.png or \.pdf"):
        made().plot(tmp_path / "a.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PythiaError, match=r"pip install 'pythia-bento\[sweep\]'"):
        made().plot(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
