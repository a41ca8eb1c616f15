"""The actor of a sweep on Ray, on the bundled checkpoint: its rows are those of one process."""

from __future__ import annotations

import asyncio
import os
import sys
import types
from contextlib import closing
from typing import Any

import pyarrow
import pytest

from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from pythia_bento.sweep.events import Row
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.ray.actor import Scorer, look
from pythia_bento.sweep.ray.wire import decode
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import SweepSpec

MODELS = ("bundled@step64", "bundled@step3000")
ITEMS = [{"prompt": f"Once upon a time, there was a bear number {n}."} for n in range(10)]


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    """Of ten items. Object references are what they refer to."""
    ray: Any = types.ModuleType("ray")
    ray.get = lambda reference: reference
    monkeypatch.setitem(sys.modules, "ray", ray)
    return parse(SweepSpec, {"models": list(MODELS), "task": {"tokens": True}, "items": ITEMS})


def asked(scorer: Scorer, model: str, block: int) -> dict[str, Any]:
    unit = pyarrow.table({"group": [3], "model": [model], "block": [block]})
    [answer] = scorer(unit).to_pylist()
    return dict(answer)


async def alone(spec: SweepSpec) -> dict[str, dict[int, Row]]:
    with PythiaRunner.load(Settings(device="cpu")) as runner:
        rows = [event async for event in run(spec, Here(runner)) if isinstance(event, Row)]
    return {
        model: {row.item: row for row in rows if row.checkpoint == index}
        for index, model in enumerate(MODELS)
    }


def test_blocks_of_an_actor_are_the_rows_of_one_process(spec: SweepSpec) -> None:
    blocks = [(0, spec.items[:7]), (7, spec.items[7:])]
    expected = asyncio.run(alone(spec))
    with closing(Scorer(spec.model_copy(update={"items": ()}), blocks)) as scorer:
        compare(scorer, expected)


def compare(scorer: Scorer, expected: dict[str, dict[int, Row]]) -> None:
    for index, model in enumerate(MODELS):
        found = [asked(scorer, model, block) for block in (1, 0)]
        assert [(one["group"], one["block"], one["error"]) for one in found] == [
            *((3, 1, None), (3, 0, None))
        ]
        rows = [row for one in found for row in decode(one["rows"], index)]
        assert {row.item: row for row in rows} == expected[model]
        assert [row.item for row in rows] == [7, 8, 9, 0, 1, 2, 3, 4, 5, 6]


class Left(BaseException):
    """In place of the end of the process."""


def test_an_engine_that_is_lost_ends_the_actor_and_is_no_answer(
    spec: SweepSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(status: int) -> None:
        raise Left

    monkeypatch.setattr(os, "_exit", leave)
    with closing(Scorer(spec.model_copy(update={"items": ()}), [(0, spec.items)])) as scorer:
        assert asked(scorer, MODELS[0], 0)["error"] is None
        runner = scorer._runner
        assert isinstance(runner, PythiaRunner)
        runner.close()
        with pytest.raises(Left):
            asked(scorer, MODELS[0], 0)


def test_a_checkpoint_that_is_not_here_is_an_answer(spec: SweepSpec) -> None:
    missing = spec.model_copy(update={"models": ("bundled@step7",), "items": ()})
    with closing(Scorer(missing, [(0, spec.items)])) as scorer:
        found = asked(scorer, "bundled@step7", 0)
    assert "bundled@step7" in found["error"]
    assert found["rows"] == b""


def test_a_machine_tells_what_it_has() -> None:
    found = look(["bundled"])
    assert found.steps == {"bundled": {0, 64, 256, 512, 1000, 3000}}
    assert set(MODELS) <= found.facts.keys()
    assert found.faults == {}
