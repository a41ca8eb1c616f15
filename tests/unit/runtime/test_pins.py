"""One place stays for the others, however many ask at the same time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.runtime.pins import Pins
from tests.unit.runtime.toy_shelf import toy_shelf


def test_the_last_place_is_not_pinned() -> None:
    pins = Pins(["a"], 3)
    pins.add("b")
    pins.add("b")
    with pytest.raises(InvalidRequest, match=r"keep 3 checkpoints .* holds 3: one"):
        pins.add("c")
    pins.discard("a")
    pins.add("c")
    pins.discard("nothing")


def test_threads_that_ask_together_get_what_there_is() -> None:
    pins, got, begin = Pins([], 8), [], threading.Barrier(20)

    def ask(number: int) -> None:
        begin.wait(60)
        try:
            pins.add(f"{number}")
        except InvalidRequest:
            return
        got.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 7


async def test_orders_that_are_on_their_way_count() -> None:
    """The engine hears of a pin after a step: those asked for meanwhile must know of it."""
    names = ("toy@step1", "toy@step2", "toy@step5", "toy@step8")
    with toy_shelf(capacity=3) as runner:
        loads = [runner.models.load(name, is_pinned=True) for name in names]
        found = await asyncio.wait_for(asyncio.gather(*loads, return_exceptions=True), 60)
        refused = [one for one in found if isinstance(one, InvalidRequest)]
        assert len(refused) == 3 and {one.param for one in refused} == {"pin"}
        states = await runner.models.states()
        assert sum(state.residency.is_pinned for state in states) == 2
        [pinned] = [name for name, one in zip(names, found, strict=True) if one not in refused]
        await runner.models.unload(pinned)
        await runner.models.load(names[3], is_pinned=True)
