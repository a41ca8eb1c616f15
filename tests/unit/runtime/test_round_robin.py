from __future__ import annotations

import pytest

from pythia_bento.runtime.round_robin import RoundRobin


def test_callers_have_turns_and_their_entries_keep_their_order() -> None:
    queue: RoundRobin[str] = RoundRobin()
    for entry in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.add(entry[0], entry)
    assert len(queue) == 6
    assert [queue.take() for _ in range(4)] == ["a1", "b1", "c1", "a2"]
    queue.add("c", "c2")
    assert [queue.take() for _ in range(3)] == ["b2", "a3", "c2"]
    assert not queue
    with pytest.raises(KeyError):
        queue.take()
