"""How long a step may be: full where a caller is alone, short where others are about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pythia_bento.engine.block_pool import BlockPool
from pythia_bento.engine.fair_queue import (
    COMPANY_SECONDS,
    LEAST_TOKENS,
    LONG_SECONDS,
    PATIENT_SECONDS,
    STEP_SECONDS,
    Books,
    Company,
    Pace,
)
from pythia_bento.engine.scheduler import Scheduler
from pythia_bento.engine.sequence import Sequence
from tests.unit.engine.toy import BLOCK_SIZE, TOKENIZER, request


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def pace(now: list[float]) -> Pace:
    return Pace(512, Company(lambda: now[0]))


def test_who_is_alone_has_whole_steps(pace: Pace) -> None:
    pace.observe(512, 10 * STEP_SECONDS)
    pace.see(["a"])
    assert (pace.is_shared, pace.prompt_tokens(12)) == (False, 500)


def test_before_the_first_step_nothing_is_known(pace: Pace) -> None:
    pace.see(["a", "b"])
    assert (pace.is_shared, pace.prompt_tokens(0)) == (True, 512)


def test_others_are_about_for_a_while(pace: Pace, now: list[float]) -> None:
    pace.observe(512, 4 * STEP_SECONDS)
    pace.see(["a", "b"])
    for _ in range(5):
        now[0] += COMPANY_SECONDS / 5
        pace.see(["a"])
        assert (pace.is_shared, pace.prompt_tokens(28)) == (True, 100)
    now[0] += 0.1
    pace.see(["a"])
    assert (pace.is_shared, pace.prompt_tokens(28)) == (False, 484)


def test_what_nobody_waits_for_is_larger_as_far_as_it_takes_no_longer(now: list[float]) -> None:
    pace = Pace(512, Company(lambda: now[0]), 3000)
    pace.see(["a"])
    assert pace.prompt_tokens(0, is_unhurried=True) == 512  # nothing is known
    for tokens, wanted in ((1000, 512), (1200, 1024), (2500, 2048), (9000, 2048)):
        pace = Pace(512, Company(lambda: now[0]), 3000)
        pace.see(["a"])
        pace.observe(tokens, LONG_SECONDS)
        assert pace.prompt_tokens(0, is_unhurried=True) == wanted
        assert pace.prompt_tokens(12) == 500
    pace.see(["b"])
    assert pace.prompt_tokens(0, is_unhurried=True) == 512


@pytest.mark.parametrize("fixed", [0.0, 0.2, 0.8])
def test_steps_come_to_take_the_time_they_may(pace: Pace, fixed: float) -> None:
    """Whatever part of it a step takes that has nothing to do."""
    pace.see(["a", "b"])
    each = STEP_SECONDS * (1 - fixed) / 200
    tokens = 1
    for _ in range(100):
        pace.observe(tokens, fixed * STEP_SECONDS + tokens * each)
        tokens = pace.prompt_tokens(0)
    assert tokens == pytest.approx(200, rel=0.05)


def test_a_slow_device_gets_on(pace: Pace) -> None:
    pace.see(["a", "b"])
    pace.observe(1, 100.0)
    assert pace.prompt_tokens(64) == LEAST_TOKENS


def test_steps_without_results_tell_nothing(pace: Pace) -> None:
    pace.see(["a", "b"])
    pace.observe(512, 4 * STEP_SECONDS)
    for _ in range(10):
        pace.observe(0, 1.0)
    assert pace.prompt_tokens(0) == 128


def test_what_is_in_no_hurry_takes_short_steps_where_others_are_about(pace: Pace) -> None:
    pace.observe(512, 2 * STEP_SECONDS)
    pace.see(["sweep"])
    assert pace.prompt_tokens(0, is_patient=True) == 512
    pace.see(["sweep", "somebody"])
    assert pace.prompt_tokens(0) == 256
    assert pace.prompt_tokens(0, is_patient=True) == int(256 * PATIENT_SECONDS / STEP_SECONDS)


def test_callers_of_one_checkpoint_are_about_for_another() -> None:
    """Whoever waits for weights waits for the step of those whose turn it is."""
    books = Books()
    scheduler = Scheduler(BlockPool(64), BLOCK_SIZE, 4, 512, books=books)
    other = Scheduler(BlockPool(64), BLOCK_SIZE, 4, 512, books=books)
    asked = replace(request("sweep", tuple(range(2, 202)), max_tokens=1), caller="sweep")
    scheduler.add(Sequence(replace(asked, priority=10), 0, 0, TOKENIZER, BLOCK_SIZE))
    scheduler.pace.observe(512, 2 * STEP_SECONDS)
    other.add(Sequence(request("somebody"), 0, 1, TOKENIZER, BLOCK_SIZE))
    assert scheduler.pace.is_shared
    [chunk] = scheduler.schedule()
    assert chunk.count == int(256 * PATIENT_SECONDS / STEP_SECONDS)
