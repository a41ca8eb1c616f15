"""The name of what computed an answer says what was changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pythia_bento.engine.interventions import Intervention
from pythia_bento.engine.params import Request
from pythia_bento.handlers import changed
from pythia_bento.handlers.changed import digested
from pythia_bento.handlers.requests import fingerprint
from pythia_bento.model.sites import EMBED, Place
from pythia_bento.runtime.runner import PythiaRunner
from tests.unit.runtime.toy_runner import ask


def scaled(by: float, values: np.ndarray | None = None) -> Intervention:
    op = "scale" if values is None else "add"
    return Intervention(Place(EMBED), op, range(9), values=values, scale=by)


async def request(by: float) -> Request:
    return replace(ask(), interventions=await digested([scaled(by)]))


async def test_equal_changes_have_one_name_and_others_another(runner: PythiaRunner) -> None:
    plain, one, same, other = ask(), await request(2), await request(2), await request(3)
    name = runner.info.fingerprint
    assert fingerprint(runner, [plain, plain]) == name
    assert one.interventions is not None
    named = f"{name}+{one.interventions.digest.hex()[:16]}"
    assert fingerprint(runner, [one]) == fingerprint(runner, [one, same]) == named
    names = {
        fingerprint(runner, requests)
        for requests in ([one], [other], [one, other], [other, one], [one, plain], [plain, one])
    }
    assert len(names) == 6 and name not in names


async def test_nothing_and_much(monkeypatch) -> None:
    assert await digested([]) is None and await digested([scaled(1)]) is None
    items = [scaled(2, np.ones(1, np.float32)), scaled(3)]
    at_once = await digested(items)
    monkeypatch.setattr(changed, "AT_ONCE", 0)
    beside = await digested(items)
    assert at_once and beside and at_once.digest == beside.digest
