from __future__ import annotations

import numpy as np

from pythia_bento.engine.drafts import AT_ONCE, FIRST, MOST, MOST_PAUSE, Drafts

TEXT = np.array([1, 2, 3] * 10, np.int32)


def pause(drafts: Drafts) -> int:
    """Steps without a draft."""
    steps = 0
    while not drafts.next(TEXT, 1):
        steps += 1
    return steps


def test_drafts_grow_while_they_are_right() -> None:
    drafts, lengths = Drafts(), []
    for _ in range(4):
        lengths.append(len(drafts.next(TEXT, 100)))
        drafts.judge(lengths[-1], lengths[-1])
    assert lengths == [FIRST, min(2 * FIRST, MOST), MOST, MOST]
    assert drafts.next(TEXT, 100) == [1, 2, 3, 1, 2, 3, 1]


def test_half_right_ones_become_as_long_as_what_was_right_and_one() -> None:
    drafts = Drafts()
    drafts.judge(MOST, 3)
    assert len(drafts.next(TEXT, 100)) == 4
    assert pause(drafts) == 0


def test_wrong_ones_come_less_often() -> None:
    drafts, pauses = Drafts(), []
    for _ in range(7):
        drafts.judge(FIRST, 0)
        pauses.append(pause(drafts))
    assert pauses == [1, 2, 4, 8, MOST_PAUSE, MOST_PAUSE, MOST_PAUSE]
    drafts.judge(1, 1)
    drafts.judge(1, 0)
    assert pause(drafts) == 1


def test_there_is_never_more_than_there_is_room_for() -> None:
    assert Drafts().next(TEXT, 1) == [1]
    assert Drafts().next(TEXT, 0) == Drafts().next(TEXT, -3) == []


def test_a_long_prompt_is_read_over_many_steps() -> None:
    drafts, text = Drafts(), np.tile(TEXT, 60)
    steps = -(-len(text) // AT_ONCE)
    assert [bool(drafts.next(text, 1)) for _ in range(steps)] == [False] * (steps - 1) + [True]
