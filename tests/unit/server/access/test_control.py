from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from pythia_bento.errors import Overloaded, PermissionDenied, Unauthenticated
from pythia_bento.server.access import control as module
from pythia_bento.server.access.control import AccessControl
from pythia_bento.settings import Settings

# The same in all of pytest's processes: they name tests.
ALICE, BOB, CAROL = (f"pb-{name:-<43}" for name in ("Alice", "Bob", "Carol"))


class Clock:
    """In place of time.monotonic, so that no test waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    yield clock


def control(**limits: int) -> AccessControl:
    keys = f"alice {ALICE}, bob {BOB}, carol {CAROL} suspended"
    return AccessControl.from_settings(
        Settings(api_keys=SecretStr(keys), **{f"key_{name}": n for name, n in limits.items()})
    )


def ask(control: AccessControl, key: str | None) -> str:
    with control.enter(key and f"Bearer {key}") as caller:
        return caller


def test_without_keys_everybody_enters() -> None:
    control = AccessControl.from_settings(Settings())
    for header in (None, "", "Bearer whatever", "Basic x"):
        with control.enter(header) as caller:
            assert caller == "anyone"


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", " BEARER  {} "])
def test_a_known_key_enters(header: str) -> None:
    for name, key in (("alice", ALICE), ("bob", BOB)):
        with control().enter(header.format(key)) as caller:
            assert caller == name


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (None, "an API key is required"),
        ("", "an API key is required"),
        ("Bearer", "an API key is required"),
        ("Bearer  ", "an API key is required"),
        (f"Basic {ALICE}", "an API key is required"),
        (ALICE, "an API key is required"),
        (f"Bearer {ALICE}x", "not known"),
        (f"Bearer {ALICE[:-1]}", "not known"),
        (f"Bearer {ALICE.swapcase()}", "not known"),
        ("Bearer \ud800é\x00", "not known"),
    ],
)
def test_others_do_not(header: str | None, words: str) -> None:
    with pytest.raises(Unauthenticated, match=words), control().enter(header):
        pass


def test_a_suspended_key_is_told_so() -> None:
    with pytest.raises(PermissionDenied, match="'carol' is suspended"):
        ask(control(), CAROL)


def test_requests_a_minute_come_back_one_by_one(clock: Clock) -> None:
    limited = control(requests_per_minute=6)
    for _ in range(6):
        ask(limited, ALICE)
    with pytest.raises(Overloaded, match="6 requests a minute; try again in 10 s") as caught:
        ask(limited, ALICE)
    assert caught.value.retry_after == 10
    ask(limited, BOB)  # has a limit of their own
    clock.now += 9
    with pytest.raises(Overloaded, match="try again in 1 s"):
        ask(limited, ALICE)
    clock.now += 1
    ask(limited, ALICE)
    clock.now += 3600  # no more than a minute's worth is saved up
    for _ in range(6):
        ask(limited, ALICE)
    with pytest.raises(Overloaded):
        ask(limited, ALICE)


def test_places_come_back_whatever_happens() -> None:
    limited = control(concurrent_requests=2, requests_per_minute=4)
    one, other = limited.enter(f"Bearer {ALICE}"), limited.enter(f"Bearer {ALICE}")
    with contextlib.suppress(ZeroDivisionError), one, other:
        with pytest.raises(Overloaded, match="2 requests of this caller are open") as caught:
            ask(limited, ALICE)
        assert caught.value.retry_after > 0
        ask(limited, BOB)
        raise ZeroDivisionError
    ask(limited, ALICE)
    ask(limited, ALICE)  # the fourth: the refused one took no token
    with pytest.raises(Overloaded, match="a minute"):
        ask(limited, ALICE)


def test_without_keys_limits_are_shared() -> None:
    limited = AccessControl.from_settings(Settings(key_concurrent_requests=1))
    with limited.enter(None), pytest.raises(Overloaded), limited.enter("Bearer other"):
        pass
    ask(limited, None)


def test_whose_turn_it_is_before_anybody_is_let_in() -> None:
    access = control()
    assert access.caller_of(f"Bearer {ALICE}") == "alice"
    # Who has no key is one caller, whatever is said instead.
    assert {access.caller_of(said) for said in (None, "Bearer", "Bearer no", f"Basic {BOB}")} == {
        ""
    }
    assert AccessControl(None).caller_of(f"Bearer {ALICE}") is None
