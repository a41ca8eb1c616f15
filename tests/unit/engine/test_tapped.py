"""Sequences with taps: what they still have to show, their blocks' names, whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import replace

import numpy as np
import pytest

from pythia_bento.engine.capture import (
    Capture,
    Lens,
    LogitsTap,
    Positions,
    Project,
    Tap,
    next_position,
    num_rows,
    within,
)
from pythia_bento.engine.executor import Chunk, Results
from pythia_bento.engine.interventions import Intervention, interventions
from pythia_bento.engine.params import Request
from pythia_bento.engine.tap_turns import MOST_OTHERS
from pythia_bento.engine.tapped import MOST_EFFORT, Mean, Tapped
from pythia_bento.model.sites import EMBED, RESID_POST, Place
from tests.unit.engine.toy import Before, ToyExecutor, request, toy_engine

ALL = range(2**31)
HASH, TOKEN = Place(RESID_POST), Place(EMBED)


@pytest.mark.parametrize(
    "positions", [range(3, 20, 4), (0, 5, 6, 40), range(2**31), (), range(0), range(7, 8)]
)
def test_positions_within_bounds_are_found(positions: Positions) -> None:
    listed = list(positions[:60])
    for start in range(45):
        for end in range(start, 45):
            first, found = within(positions, start, end)
            assert list(found) == [p for p in listed if start <= p < end]
            assert not found or listed[first] == found[0]
        expected = next((p for p in listed if p >= start), None)
        assert next_position(positions, start) == expected
    assert num_rows(positions, 12) == len([p for p in listed if p < 12])


def of(capture: Capture | None = None, *items: Intervention) -> Request:
    return replace(request(), capture=capture, interventions=interventions(items))


def test_the_first_position_that_is_missing_is_that_of_any_tap() -> None:
    capture = Capture((Tap(HASH, (4, 9)), Tap(TOKEN, range(6, 8))), LogitsTap((1,), (20,)))
    taps = Tapped(of(capture), block_size=4)
    found = []
    for taps.num_filled in (0, 5, 8, 10, 21):
        found.append(taps.first_missing)
    assert found == [4, 6, 9, 20, None]
    assert not request().has_taps


def test_names_of_blocks_differ_from_the_first_change_on() -> None:
    taps = Tapped(of(None, Intervention(TOKEN, "zero", (9,))), block_size=4)
    names = [taps.salted(block, b"parent") for block in range(4)]
    assert [name == b"parent" for name in names] == [True, True, False, True]
    other = Tapped(of(None, Intervention(TOKEN, "zero", (8, 9))), block_size=4)
    assert other is not None and other.salted(2, b"parent") != names[2]


def test_what_takes_long_is_done_in_small_pieces() -> None:
    directions = np.ones((640, 1), np.float32)
    lenses = tuple(Tap(HASH, (10, 50), reduction=Lens(1, (3,) * 16)) for _ in range(4))
    taps = Tapped(of(Capture((*lenses, Tap(TOKEN, ALL, reduction="mean")))), block_size=4)
    most = MOST_EFFORT // 8
    assert [taps.most_tokens(start) for start in (0, 10, 11, 51)] == [
        10 + most,
        most,
        39 + most,
        None,
    ]
    product = Tapped(of(Capture((Tap(HASH, ALL, reduction=Project(directions)),))), block_size=4)
    assert product is not None and product.most_tokens(7) == MOST_EFFORT // 10


def test_a_pass_has_no_more_of_it_than_it_may() -> None:
    most: list[int] = []

    def see(chunks: Seq[Chunk]) -> None:
        efforts = [c.sequence.taps.effort(c.start, c.count) for c in chunks if c.sequence.taps]
        assert sum(efforts) <= MOST_EFFORT or len(efforts) == 1
        most.append(len(efforts))

    product = Tap(HASH, ALL, reduction=Project(np.ones((640, 1), np.float32)))
    shown = Capture((product,) * 10)  # as much as 100 rows of logits a position
    requests = [
        replace(request(str(n), (5 + n, 6), max_tokens=4, ignore_eos=True), capture=shown)
        for n in range(7)
    ]
    engine = toy_engine(64, before=see)
    engine.lend(np.zeros(2**20, np.uint8))
    answers = engine.generate(requests)
    assert {answer.finish_reason for [answer] in answers} == {"length"}
    assert 1 < max(most) <= 5


def test_a_mean_is_the_same_in_any_pieces() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    whole, pieces = Mean().add(0, rows), Mean()
    for begin in range(0, 20, 3):
        pieces.add(begin, rows[begin : begin + 3])
        found = pieces.add(begin, rows[begin : begin + 3])  # a step that is made again
    assert np.array_equal(found, whole)
    assert np.array_equal(whole, (rows.astype("f8").cumsum(0)[-1] / 20).astype("f4"))


def kinds(before: list[str]) -> Before:
    """Writes down whether a step was one for taps."""

    def see(chunks: object) -> None:
        has = {chunk.sequence.taps is not None for chunk in chunks}  # type: ignore[attr-defined]
        assert len(has) == 1
        before.append("taps" if has == {True} else "plain")

    return see


def test_both_kinds_get_on_by_turns() -> None:
    steps: list[str] = []
    engine = toy_engine(64, before=kinds(steps), max_batch_size=16)
    engine.lend(np.zeros(4096, np.uint8))
    shown = Capture((Tap(HASH, ALL),))
    requests = [
        replace(request(str(n), (5 + n, 6), max_tokens=6, ignore_eos=True), capture=capture)
        for n, capture in enumerate([None, shown, None])
    ]
    together = engine.generate(requests)
    # Two others, so two steps of theirs between two with taps.
    assert steps == ["taps", "plain", "plain"] * 3 + ["taps"] * 3
    for asked, answers in zip(requests, together, strict=True):
        alone = toy_engine(64)
        alone.lend(np.zeros(4096, np.uint8))
        assert alone.generate([asked])[0] == answers
    engine.check()


def test_the_executor_hears_when_the_other_kind_comes_next() -> None:
    heard: list[tuple[str, bool]] = []
    steps: list[str] = []

    class Listening(ToyExecutor):
        def _execute(self, chunks: Seq[Chunk], others_wait: bool) -> Results:
            results = super()._execute(chunks, others_wait)
            heard.append((steps[-1], self.others_next))
            return results

    engine = toy_engine(64, before=kinds(steps), kind=Listening)
    many = [request(str(n), (5 + n, 6), max_tokens=12, ignore_eos=True) for n in range(9)]
    changed = replace(many[0], interventions=interventions([Intervention(TOKEN, "zero", (0,))]))
    engine.generate([changed, *many[1:]])
    turn = [("taps", True), *[("plain", False)] * (MOST_OTHERS - 1), ("plain", True)]
    assert heard[:10] == 2 * turn
    assert heard[-1][1] is False


def test_neither_kind_waits_for_the_end_of_the_other() -> None:
    """Long prompts of one kind come all the time, and the other is done with the first of them."""
    for is_shown in (True, False):
        steps: list[str] = []
        engine = toy_engine(256, before=kinds(steps), max_batch_size=8, max_tokens_per_step=8)
        engine.lend(np.zeros(2**16, np.uint8))
        capture = Capture((Tap(HASH, ALL),))
        for number in range(30):
            prompt = tuple(2 + (number + place) % 60 for place in range(50))
            long = replace(request(f"l{number}", prompt), capture=None if is_shown else capture)
            engine.add_request(replace(long, params=replace(long.params, max_tokens=1)))
        short = request("s", (5, 6, 7), max_tokens=3, ignore_eos=True)
        engine.add_request(replace(short, capture=capture if is_shown else None, priority=-20))
        ended: list[str] = []
        while "s" not in ended:
            ended += [output.request_id for output in engine.step() if output.finish_reason]
        assert len(ended) < 6
        engine.close()
