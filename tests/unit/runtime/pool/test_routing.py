from __future__ import annotations

from pythia_bento.runtime.pool.routing import GRAIN, Prefixes, names_of
from tests.unit.runtime.toy_runner import ask

LONG = tuple(range(3 * GRAIN + 5))


def test_a_beginning_is_known_as_far_as_it_is_the_same() -> None:
    prefixes = Prefixes(10 * GRAIN)
    prefixes.add(names_of(ask(LONG)))
    assert len(prefixes) == 3
    assert prefixes.known(names_of(ask(LONG))) == 3 * GRAIN
    assert prefixes.known(names_of(ask((*LONG[: 2 * GRAIN], *LONG)))) == 2 * GRAIN
    assert prefixes.known(names_of(ask((7, *LONG)))) == 0
    assert prefixes.known(names_of(ask(LONG[: GRAIN - 1]))) == 0


def test_what_was_given_longest_ago_is_forgotten_and_ends_first() -> None:
    prefixes = Prefixes(4 * GRAIN)
    old, new = names_of(ask(LONG)), names_of(ask(tuple(reversed(LONG))))
    prefixes.add(old)
    prefixes.add(new)
    assert len(prefixes) == 4
    assert prefixes.known(new) == 3 * GRAIN
    assert prefixes.known(old) == GRAIN
