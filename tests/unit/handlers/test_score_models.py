"""``score`` over many checkpoints: each item by its own, in the order of the request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pythia_bento.errors import CheckpointError, ModelNotFound
from pythia_bento.handlers import score as scoring
from pythia_bento.handlers.score import MAX_UNKNOWN, AttributedItem, score
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.telemetry.calls import CallContext
from tests.unit.runtime.toy_shelf import BROKEN, COLD, DEFAULT, STEPS, toy_shelf, toy_step

TEXT: dict[str, Any] = {"prompt": [5, 6, 7, 8], "logprobs": 2}


@pytest.fixture
def shelf() -> Iterator[PythiaRunner]:
    with toy_shelf(fault=CheckpointError("its file was changed")) as runner:
        yield runner


async def alone(step: int) -> Any:
    with toy_step(step) as runner:
        return (await score(runner, [TEXT]))[0]


async def test_items_of_many_checkpoints_come_back_in_their_order(shelf: PythiaRunner) -> None:
    steps = [1, 3, 8, 1, 2, 5, 3, 8]
    results = await score(shelf, [TEXT | {"model": f"toy@step{step}"} for step in steps])
    wanted = {step: await alone(step) for step in set(steps)}
    assert results == [wanted[step] for step in steps]
    assert len({repr(found) for found in wanted.values()}) == len(wanted)  # they do differ


async def test_the_items_own_model_wins(shelf: PythiaRunner) -> None:
    mixed = [TEXT, TEXT | {"model": "owner/toy@step2"}, TEXT | {"model": None}]
    assert await score(shelf, mixed, COLD) == [await alone(step) for step in (1, 2, 1)]
    assert await score(shelf, [TEXT]) == [await alone(3)]


async def test_an_items_model_fails_that_item_alone(shelf: PythiaRunner) -> None:
    names = ["toy@step4", BROKEN, "toy@step4", "other@step1", 7]
    *failed, good = await score(shelf, [*(TEXT | {"model": name} for name in names), TEXT])
    assert [found["error"]["code"] for found in failed] == [
        *("model_not_found", "checkpoint_error", "model_not_found"),
        *("invalid_value", "invalid_value"),
    ]
    assert {found["error"]["param"] for found in failed} == {"model", None}
    assert good == await alone(3)


async def test_the_requests_model_fails_the_request(shelf: PythiaRunner) -> None:
    with pytest.raises(ModelNotFound):
        await score(shelf, [TEXT], "toy@step4")


async def test_names_are_looked_up_once_and_few_wrong_ones_of_a_call(shelf: PythiaRunner) -> None:
    many, one = CallContext("many"), CallContext("one")
    names = [f"toy@step{1000 + number}" for number in range(MAX_UNKNOWN + 3)]
    items = [AttributedItem(TEXT | {"model": name}, many) for name in names * 2]
    items.append(AttributedItem(TEXT | {"model": COLD}, one))
    looks = shelf.models._shelf.looks  # type: ignore[union-attr]
    looks.clear()
    *refused, good = await score(shelf, items)
    assert looks == [*names[:MAX_UNKNOWN], COLD]
    words = [found["error"]["message"] for found in refused]
    assert sum(f"more than {MAX_UNKNOWN} models" in message for message in words) == 6
    assert good == await alone(1)  # its batch-mate took nothing of its share


async def test_a_call_may_name_so_many(
    shelf: PythiaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MAX_MODELS", 2)
    names = [COLD, DEFAULT, "toy@step2", COLD]
    first, second, refused, again = await score(shelf, [TEXT | {"model": one} for one in names])
    assert "name more than 2 models" in refused["error"]["message"]
    assert [first, second, again] == [await alone(1), await alone(3), await alone(1)]


async def test_every_step_is_itself(shelf: PythiaRunner) -> None:
    for step in (*STEPS[:5], *STEPS[:5]):
        assert await score(shelf, [TEXT], f"toy@step{step}") == [await alone(step)]
