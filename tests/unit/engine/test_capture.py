"""Where the numbers of a capture go: worked out once, in each process."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np

from pythia_bento.engine.capture import (
    ALIGNMENT,
    Capture,
    Lens,
    LogitsTap,
    Project,
    Tap,
    capture_bytes,
    layout,
)
from pythia_bento.model.sites import PATTERN, RESID_POST, Place, Z
from tests.unit.engine.test_inside_limits import CONFIG

ALL = range(1 << 31)
TAPS = (
    Tap(Place(RESID_POST, 0), ALL),
    Tap(Place(RESID_POST, 1), ALL),
    Tap(Place(RESID_POST, 1), (0, 4, 9)),
    Tap(Place(RESID_POST, 1), ALL, reduction="mean", dtype="float16"),
    Tap(Place(RESID_POST, 1), ALL, reduction=Project(np.ones((3, CONFIG.hidden_size)))),
    Tap(Place(RESID_POST, 1), ALL, reduction=Lens(2, (5,))),
    Tap(Place(Z, 0), ALL, heads=(0,), dtype="bfloat16"),
    Tap(Place(PATTERN, 0), ALL),
)
CAPTURE = Capture(TAPS, LogitsTap((1, 2), (6,)))


def test_parts_follow_each_other_and_are_aligned() -> None:
    groups, total = layout(CAPTURE, CONFIG, 7)
    assert [len(group) for group in groups] == [1, 1, 1, 1, 1, 3, 1, 1, 1]
    place = 0
    for placed in (placed for group in groups for placed in group):
        assert placed.offset == place
        place += -(-placed.part.nbytes(placed.rows) // ALIGNMENT) * ALIGNMENT
    assert place == total == capture_bytes(CAPTURE, CONFIG, 7)
    assert [group[0].rows for group in groups] == [7, 7, 2, 7, 7, 7, 7, 7, 1]
    assert groups[7][0].part.row == (CONFIG.num_heads, 7)
    for index, tap in enumerate(TAPS):  # each as it is alone
        [alone], _ = layout(Capture((tap,)), CONFIG, 7)
        assert [placed.part for placed in groups[index]] == [placed.part for placed in alone]


def test_it_is_worked_out_once_and_another_process_does_it_itself() -> None:
    capture = Capture(TAPS)
    found = layout(capture, CONFIG, 7)
    moved = replace(capture, region=64)
    assert layout(moved, CONFIG, 7) is found
    assert layout(moved, CONFIG, 8)[1] > found[1]
    other = replace(CONFIG, hidden_size=2 * CONFIG.hidden_size)
    assert layout(capture, other, 7)[1] > found[1]
    sent = pickle.loads(pickle.dumps(capture))
    assert not sent.layouts and layout(sent, CONFIG, 7)[1] == found[1]
