"""Who is on the device, and who makes room."""

from __future__ import annotations

import random

import pytest

from pythia_bento.engine.residents import LEAST_SECONDS, LOADS, Residents
from pythia_bento.errors import CheckpointError


class Clock:
    """Stands still until it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def idle(key: str) -> bool:
    return False


def test_a_pinned_one_is_never_evicted_whatever_happens() -> None:
    rng, clock = random.Random(3), Clock()
    residents = Residents(4, clock)
    keys = [f"m{number}" for number in range(9)]
    running: set[str] = set()
    for _ in range(10_000):
        clock.now += rng.random()
        key = rng.choice(keys)
        match rng.randrange(6):
            case 0:
                pinned = [k for k in keys if residents[k].is_pinned]
                residents.pin(key, is_pinned=len(pinned) < 3 and rng.random() < 0.5)
            case 1 if residents[key].state == "device":
                residents.use(key)
                running ^= {key}
            case 2 | 3 | 4 if residents[key].state not in ("device", "loading"):
                if not residents.has_room:
                    busy = {*running, *rng.sample(keys, 3)}
                    victim = residents.victim(running.__contains__, busy)
                    if victim is None:
                        continue
                    assert not residents[victim].is_pinned and victim not in running
                    residents.evict(victim)
                residents.put(key, "loading")
            case _ if residents[key].state == "loading":
                failed = CheckpointError("damaged") if rng.random() < 0.1 else None
                residents.put(key, "failed" if failed else "device", error=failed)
        assert len(residents.on_device) + len(residents.loading) <= 4
        running &= {*residents.on_device}
    assert residents.evictions > 500


def test_of_those_without_work_the_one_used_longest_ago_goes() -> None:
    residents = Residents(3, clock := Clock())
    for key in "abc":
        residents.put(key, "loading")
        residents.put(key, "device")
    for key in "bac":
        clock.now += 1
        residents.use(key)
    assert not residents.has_room
    assert residents.victim(idle, {"b"}) == "a"
    assert residents.victim(idle, set()) == "b"


def test_one_that_always_has_work_is_told_to_go_when_it_was_there_long_enough() -> None:
    residents = Residents(2, clock := Clock())
    for key in "ab":
        residents.put(key, "loading")
        clock.now += 0.2
        residents.put(key, "device")
    busy = {"a", "b"}
    assert residents.victim(busy.__contains__, busy) is None and residents.draining is None
    clock.now += max(LOADS * 0.2, LEAST_SECONDS)
    assert residents.victim(busy.__contains__, busy) is None and residents.draining == "a"
    assert residents.victim({"b"}.__contains__, busy) == "a"
    residents.evict("a")
    assert residents.draining is None and residents["a"].state == "disk"


def test_what_was_read_does_not_change() -> None:
    residents = Residents(2)
    before = residents.all
    residents.put("a", "loading")
    assert before == {} and residents.all["a"].state == "loading"


def test_there_is_a_place() -> None:
    with pytest.raises(ValueError, match="a place for one"):
        Residents(0)
