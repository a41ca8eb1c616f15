"""What this machine has, by shape, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pythia_bento.catalog import SIZES
from pythia_bento.checkpoints.bundle import list_bundled
from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.errors import CheckpointError, ModelNotFound, PythiaError
from pythia_bento.sweep.at_hand import MAX_NAMES, AtHand
from pythia_bento.sweep.source import Facts

STEPS = {0, 64, 256, 512, 1000, 3000}


@pytest.fixture(autouse=True)
def _no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def entry(id: str, size: str) -> ShelfEntry:
    [bundled, *_] = AtHand.of(["bundled"]).entries.values()
    return replace(bundled, name=id, names=(id,), weights=f"w {id}", config=SIZES[size].config)


def test_the_bundle() -> None:
    found = AtHand.of(["bundled", "bundled"])
    assert found.steps("bundled") == STEPS
    assert found.steps("pythia-14m") == set()
    [first, *_] = list_bundled()
    facts = found.look(first.model_id)
    assert isinstance(facts, Facts)
    assert (facts.step, facts.commit) == (0, first.commit)
    assert found.look(f"bundled@{first.commit}") == facts


def test_what_is_not_here() -> None:
    found = AtHand.of(["pythia-14m"])
    missing = found.look("pythia-14m@step512")
    assert isinstance(missing, ModelNotFound)
    assert "pythia-14m@step512 is not in the store; `pythia-bento pull" in missing.message
    unknown = found.look("pythia-15m")
    assert isinstance(unknown, PythiaError) and "there is no model" in unknown.message


def test_what_makes_no_sense_is_a_step_that_fails() -> None:
    fault = CheckpointError("its config makes no sense")
    found = AtHand({}, {"pythia-14m@step1": fault})
    assert found.steps("pythia-14m") == {1}
    assert found.look("pythia-14m@step1") is fault


def test_one_shape_after_the_other() -> None:
    sizes = {"pythia-14m": "14m", "pythia-14m-seed1": "14m", "pythia-31m": "31m"}
    ids = [f"{name}@step{step}" for step in (0, 1) for name in sizes]
    here = AtHand({id: entry(id, sizes[id.partition("@")[0]]) for id in ids})
    first, second = here.together([*ids, "pythia-70m@step0"])
    assert first.names == ("pythia-14m", "pythia-14m-seed1")
    assert first.patterns == "pythia-14m@*,pythia-14m-seed1@*"
    assert first.ids == tuple(f"{name}@step{step}" for name in first.names for step in (0, 1))
    assert second.ids == ("pythia-31m@step0", "pythia-31m@step1")


def test_as_many_names_as_a_runner_takes() -> None:
    ids = [f"someone/tiny{number}@step0" for number in range(MAX_NAMES + 1)]
    here = AtHand({id: entry(id, "14m") for id in ids})
    assert [len(part.ids) for part in here.together(ids)] == [MAX_NAMES, 1]
