"""``score``: items fail alone, and each is asked for by the caller of its own call."""

from __future__ import annotations

from pythia_bento.handlers.score import AttributedItem, score
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.telemetry.calls import CallContext, working_for
from tests.unit.runtime.toy_runner import toy_runner


async def test_an_item_that_fails_fails_alone(runner: PythiaRunner) -> None:
    items = [{"prompt": [5, 6]}, {"prompt": []}, 7, {"prompt": [5, 6], "logprobs": 21}]
    good, empty, none, many = await score(runner, items)
    assert good["num_tokens"] == 1
    assert "prompt must be" in empty["error"]["message"]
    assert "an item must be a JSON object" in none["error"]["message"]
    assert many["error"]["param"] == "prompt_logprobs"


async def test_callers_of_one_batch_take_turns() -> None:
    many, one = CallContext("many", caller="alice"), CallContext("one", caller="bob")
    items = [AttributedItem({"prompt": [i + 1, 2, 3]}, many) for i in range(20)]
    with toy_runner(max_batch_size=1) as runner:
        await score(runner, [*items, AttributedItem({"prompt": [99, 2, 3]}, one)])
    begun = sorted((one.started, one.request.caller) for one in (*many.requests, *one.requests))
    assert [caller for _, caller in begun[:3]].count("bob") == 1
    assert len(begun) == 21


async def test_items_without_a_call_of_their_own_are_the_current_ones(runner: PythiaRunner) -> None:
    call = CallContext("call", caller="alice")
    with working_for(call):
        await score(runner, [{"prompt": [5, 6]}, {"prompt": [7, 8]}])
    assert [timings.request.caller for timings in call.requests] == ["alice"] * 2


async def test_greedy_is_what_greedy_decoding_takes_with_and_without_alternatives(
    runner: PythiaRunner,
) -> None:
    for first in range(5, 25):
        text = {"prompt": [first, 6]}
        [plain, shown] = await score(runner, [text, text | {"logprobs": 1}])
        [top] = shown["tokens"][0].pop("top")
        assert plain == shown
        if top["id"] < runner.limits.num_tokens - 1:  # else no text has it
            break
    for logprobs in (0, 3):
        items = [
            {"prompt": [first], "continuation": [id], "logprobs": logprobs}
            for id in (top["id"], top["id"] + 1)
        ]
        assert [found["is_greedy"] for found in await score(runner, items)] == [True, False]


async def test_scores_need_no_alternatives() -> None:
    with toy_runner(max_logprobs=0) as runner:
        [result] = await score(runner, [{"prompt": [5, 6, 7]}])
    assert result["num_tokens"] == 2
