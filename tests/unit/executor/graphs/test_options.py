"""What captured steps can do for which sequences."""

from __future__ import annotations

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.sequence import Sequence
from pythia_bento.executor.graphs.options import asked, fit, wanted
from tests.constraints import CASES
from tests.unit.engine.toy import request, toy_engine


def sequence(**params: object) -> Sequence:
    """As an engine makes it."""
    engine: Engine = toy_engine(64)
    engine.add_request(request(prompt=(5, 6), **params))
    [made] = engine._open._sequences.popitem()[1]
    return made


def test_a_guided_sequence_and_those_beside_it_leave_captured_choices() -> None:
    plain, filtered = sequence(), sequence(top_k=5)
    guided = sequence(constraint=CASES["regex"].constraint)
    assert (asked(plain), asked(filtered), asked(guided)) == (False, True, True)
    assert fit([plain, filtered]) and wanted([(filtered, 2), (plain, 2)])
    assert not fit([plain, guided]) and not wanted([(guided, 2), (plain, 2)])
