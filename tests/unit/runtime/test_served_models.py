"""``ServedModels``: a shelf's names, states and orders."""

from __future__ import annotations

from pythia_bento.runtime.runner import PythiaRunner
from tests.unit.runtime.toy_runner import toy_engine_of
from tests.unit.runtime.toy_shelf import COLD, DEFAULT, toy_shelf


async def test_each_set_of_weights_is_made_once() -> None:
    with toy_shelf() as runner:
        assert await runner.served(None) is await runner.served(DEFAULT) is runner
        cold = await runner.served(COLD)
        assert cold is await runner.served(f"owner/{COLD}")
        assert (cold.info.id, cold.tokenizer) == (COLD, runner.tokenizer)


async def test_where_there_is_one_it_is_on_the_device() -> None:
    """Its engine is no group, and knows nothing of residents."""
    with toy_shelf() as many:
        info, settings = many.info, many.settings
    with PythiaRunner(toy_engine_of(settings), info, settings) as runner:
        state = await runner.models.state(DEFAULT)
        assert [state] == await runner.models.states()
        assert (state.residency.state, state.residency.is_pinned) == ("device", True)
        assert await runner.models.unload(DEFAULT) == state
