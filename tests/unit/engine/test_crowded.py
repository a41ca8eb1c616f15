"""Many callers and few blocks: sequences give way and begin anew, and answers stay the same."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pythia_bento.engine.params import Request
from tests.unit.engine.toy import request, toy_engine


def asked(seed: int) -> list[Request]:
    random_ = random.Random(seed)
    return [
        replace(
            request(
                f"r{number}",
                tuple(random_.randrange(2, 90) for _ in range(random_.randrange(1, 14))),
                max_tokens=random_.randrange(1, 12),
                seed=number,
                ignore_eos=True,
            ),
            caller=f"c{random_.randrange(8)}",
        )
        for number in range(40)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_who_gives_way_and_comes_back_within_a_step_is_computed_once(seed: int) -> None:
    requests = asked(seed)
    engine = toy_engine(24)
    answers = engine.generate(requests)
    engine.check()
    assert engine.stats().preemptions > 0
    for one, [answer] in zip(requests, answers, strict=True):
        [[alone]] = toy_engine().generate([one])
        assert answer.token_ids == alone.token_ids, one
