"""A flag that ``poll`` waits for."""

from __future__ import annotations

import select

from pythia_bento.runtime.interrupts import Interrupts


def is_readable(interrupts: Interrupts) -> bool:
    poll = select.poll()
    poll.register(interrupts.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_it_can_be_read_while_it_is_set() -> None:
    interrupts = Interrupts()
    assert not is_readable(interrupts)
    interrupts.set()
    interrupts.set()  # one wake-up is enough
    assert is_readable(interrupts)
    interrupts.clear()
    assert not is_readable(interrupts)
    interrupts.close()


def test_setting_it_once_closed_does_nothing() -> None:
    interrupts = Interrupts()
    interrupts.close()
    interrupts.set()
