"""``ServedModels``: a shelf's names, states and orders."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pythia_bento.errors import EngineUnavailable
from pythia_bento.runtime.runner import PythiaRunner
from tests.unit.runtime.toy_runner import ask, toy_engine_of
from tests.unit.runtime.toy_shelf import COLD, DEFAULT, toy_shelf


async def test_each_set_of_weights_is_made_once() -> None:
    with toy_shelf() as runner:
        assert await runner.served(None) is await runner.served(DEFAULT) is runner
        cold = await runner.served(COLD)
        assert cold is await runner.served(f"owner/{COLD}")
        assert (cold.info.id, cold.tokenizer) == (COLD, runner.tokenizer)


async def test_an_order_ends_with_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, released = threading.Event(), threading.Event()

    def hanging_step() -> list[object]:
        entered.set()
        released.wait()
        return []

    with toy_shelf() as runner:
        thread, ordered = runner._thread, []
        order_one = thread.order
        monkeypatch.setattr(thread, "order", lambda do: ordered.append(do) or order_one(do))
        monkeypatch.setattr(thread._engine, "step", hanging_step)
        stream = await runner.submit([ask()])
        await asyncio.to_thread(entered.wait)  # from now on no order is followed
        order = asyncio.create_task(runner.models.unload(COLD))
        left = asyncio.create_task(runner.models.unload(COLD))
        while len(ordered) < 2:
            await asyncio.sleep(0.001)
        left.cancel()
        thread.abandon(EngineUnavailable("the engine makes no step"))
        with pytest.raises(EngineUnavailable, match="makes no step"):
            await asyncio.wait_for(order, 60)
        stream.close()
        released.set()


async def test_where_there_is_one_it_is_on_the_device() -> None:
    """Its engine is no group, and knows nothing of residents."""
    with toy_shelf() as many:
        info, settings = many.info, many.settings
    with PythiaRunner(toy_engine_of(settings), info, settings) as runner:
        state = await runner.models.state(DEFAULT)
        assert [state] == await runner.models.states()
        assert (state.residency.state, state.residency.is_pinned) == ("device", True)
        assert await runner.models.unload(DEFAULT) == state
