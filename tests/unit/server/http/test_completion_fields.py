"""What each field of a completion changes, beyond what ``test_openai.py`` has."""

from __future__ import annotations

import json
import math

import pytest

from pythia_bento.engine.params import score_request
from pythia_bento.runtime.runner import PythiaRunner
from tests.unit.runtime.toy_runner import toy_runner

WARM = {"max_tokens": 12, "temperature": 1.0, "ignore_eos": True}


def texts(answer: dict) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def events(text: str) -> list[dict]:
    parts = [part.removeprefix("data: ") for part in text.strip().split("\n\n")]
    assert parts[-1] == "[DONE]"
    return [json.loads(part) for part in parts[:-1]]


async def test_best_of_answers_with_the_highest_mean_logprob(complete) -> None:
    every = await complete(n=6, logprobs=2, stop=["t", "e"], **WARM)
    wanted = sorted(every["choices"], key=_mean, reverse=True)[:2]
    assert len({len(choice["logprobs"]["tokens"]) for choice in every["choices"]}) > 1
    found = await complete(n=2, best_of=6, logprobs=2, stop=["t", "e"], **WARM)
    for index, (choice, best) in enumerate(zip(found["choices"], wanted, strict=True)):
        assert choice == best | {"index": index}
    assert found["usage"] == every["usage"]  # all six count
    silent = await complete(n=2, best_of=6, stop=["t", "e"], **WARM)
    assert texts(silent) == texts(found)
    assert all(choice["logprobs"] is None for choice in silent["choices"])


def _mean(choice: dict) -> float:
    values = choice["logprobs"]["token_logprobs"]
    return math.fsum(values) / len(values)


async def test_best_of_shares_the_prompt(complete, runner: PythiaRunner) -> None:
    before = runner.stats()
    await complete(prompt=[[5] * 40, [6] * 40], best_of=4, max_tokens=2)
    after = runner.stats()
    assert after.prompt_tokens - before.prompt_tokens == 80
    assert after.prefix_hits - before.prefix_hits >= 2 * 3 * 36  # whole blocks


async def test_best_of_of_several_prompts_keeps_them_apart(complete) -> None:
    options = {"n": 2, "best_of": 5, "logprobs": 0, "echo": True, **WARM}
    together = await complete(prompt=["the end", "in all"], **options)
    alone = [(await complete(prompt=prompt, **options)) for prompt in ("the end", "in all")]
    assert texts(together) == [*texts(alone[0]), *texts(alone[1])]
    assert [choice["index"] for choice in together["choices"]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "penalty",
    [{"presence_penalty": 2}, {"frequency_penalty": 1.5}, {"repetition_penalty": 3.0}],
)
async def test_penalties_make_tokens_differ(complete, penalty: dict) -> None:
    options = {"temperature": 0, "max_tokens": 20, "ignore_eos": True, "logit_bias": {"9": 5}}
    plain = await complete(return_token_ids=True, **options)
    found = await complete(return_token_ids=True, **options, **penalty)
    before, after = (len(set(a["choices"][0]["token_ids"])) for a in (plain, found))
    assert after > before


async def test_penalties_are_the_same_streamed_and_in_company(complete, client) -> None:
    body = {"frequency_penalty": 0.5, "repetition_penalty": 1.2, "n": 3, "seed": 4, **WARM}
    plain = await complete(**body)
    response = await client.post("/completions", json={"prompt": "the end", "stream": True} | body)
    streamed = ["", "", ""]
    for event in events(response.text):
        for choice in event["choices"]:
            streamed[choice["index"]] += choice["text"]
    assert streamed == texts(plain)


async def test_prompt_logprobs_have_vllms_shape(complete, runner: PythiaRunner) -> None:
    prompt = [5, 6, 7]
    answer = await complete(prompt=prompt, prompt_logprobs=2, max_tokens=1, n=2)
    [scored] = await runner.score([score_request(tuple(prompt), 2)])
    for choice in answer["choices"]:
        first, *rest = choice["prompt_logprobs"]
        assert first is None and choice["logprobs"] is None
        ranks = scored.prompt_logprobs.ranks.tolist()
        for shown, token, rank in zip(rest, scored.prompt_logprobs, ranks, strict=True):
            ids = [str(id) for id, _ in token.top]
            own = str(token.token_id)
            assert list(shown) == [own, *(id for id in ids if id != own)]
            assert shown[own]["logprob"] == token.logprob
            assert shown[own]["decoded_token"] == runner.tokenizer.token_text(token.token_id)
            assert [shown[id]["rank"] for id in ids] == [1, 2]
            assert shown[own]["rank"] == rank
            assert (rank > 2) == (own not in ids)
    without = await complete(prompt=prompt, max_tokens=1)
    assert "prompt_logprobs" not in without["choices"][0]


async def test_echo_and_prompt_logprobs_each_keep_their_number(complete) -> None:
    answer = await complete(prompt=[5, 6, 7], echo=True, logprobs=1, prompt_logprobs=4)
    [choice] = answer["choices"]
    assert all(len(top) in (1, 2) for top in choice["logprobs"]["top_logprobs"][1:])
    assert all(len(shown) in (4, 5) for shown in choice["prompt_logprobs"][1:])
    alone = await complete(prompt=[5, 6, 7], echo=True, logprobs=1)
    assert alone["choices"][0]["logprobs"] == choice["logprobs"]


@pytest.mark.parametrize("echo", [False, True])
async def test_token_ids_plain_and_streamed(complete, client, runner, echo: bool) -> None:
    body = {"prompt": "the end", "return_token_ids": True, "echo": echo, "n": 2, **WARM}
    body |= {"stop": ["zzz"], "prompt_logprobs": 0}
    plain = await complete(**body)
    streamed: dict[int, dict] = {}
    for event in events((await client.post("/completions", json=body | {"stream": True})).text):
        [choice] = event["choices"]
        if choice["index"] in streamed:
            assert not {"prompt_token_ids", "prompt_logprobs"} & choice.keys()
            streamed[choice["index"]]["token_ids"] += choice["token_ids"]
        else:
            streamed[choice["index"]] = choice
    for choice in plain["choices"]:
        own = streamed[choice["index"]]
        assert choice["prompt_token_ids"] == runner.tokenizer.encode("the end")
        for field in ("token_ids", "prompt_token_ids", "prompt_logprobs"):
            assert own[field] == choice[field]
        assert runner.tokenizer.decode(choice["token_ids"]) in choice["text"]


async def test_tokens_may_be_named_by_their_ids(complete) -> None:
    options = {"logprobs": 1, "echo": True, "return_token_ids": True, "max_tokens": 4}
    [choice] = (await complete(return_tokens_as_token_ids=True, **options))["choices"]
    ids = choice["prompt_token_ids"] + choice["token_ids"]
    assert choice["logprobs"]["tokens"] == [f"token_id:{id}" for id in ids]
    assert all(key.startswith("token_id:") for key in choice["logprobs"]["top_logprobs"][-1])
    [named] = (await complete(**options))["choices"]
    assert named["logprobs"]["text_offset"] == choice["logprobs"]["text_offset"]


async def test_prompts_are_cut_on_the_left(complete) -> None:
    ids = list(range(5, 45))
    wanted = await complete(prompt=ids[-7:], logprobs=1, max_tokens=4)
    cut = await complete(prompt=ids, truncate_prompt_tokens=7, logprobs=1, max_tokens=4)
    assert (cut["choices"], cut["usage"]) == (wanted["choices"], wanted["usage"])
    whole = await complete(prompt=ids, truncate_prompt_tokens=64, max_tokens=4)
    assert whole["usage"]["prompt_tokens"] == 40
    fits = await complete(prompt=ids * 3, truncate_prompt_tokens=-1, max_tokens=4)
    assert fits["usage"]["prompt_tokens"] == 60
    echoed = await complete(prompt="in the end", truncate_prompt_tokens=2, echo=True, max_tokens=0)
    assert echoed["choices"][0]["text"] == "nd"


async def test_special_tokens_and_stops_may_be_shown(complete, runner) -> None:
    force = {"temperature": 0, "max_tokens": 3, "logit_bias": {"1": 100}}  # <|padding|>
    assert texts(await complete(**force)) == [""]
    shown = await complete(skip_special_tokens=False, logprobs=0, echo=True, **force)
    assert texts(shown) == ["the end" + 3 * "<|padding|>"]
    offsets = shown["choices"][0]["logprobs"]["text_offset"]
    assert offsets[-3:] == [7, 18, 29]
    [the] = runner.tokenizer.encode("the")
    stopped = {"temperature": 0, "logit_bias": {str(the): 100}, "stop": ["ethe"]}
    assert texts(await complete(**stopped)) == ["th"]
    [choice] = (await complete(include_stop_str_in_output=True, **stopped))["choices"]
    assert (choice["text"], choice["stop_reason"]) == ("thethe", "ethe")


async def test_usage_in_every_event(client) -> None:
    async def ask(**options: bool) -> list[dict]:
        body = {"prompt": "the end", "stream": True, "n": 2, "stream_options": options, **WARM}
        return events((await client.post("/completions", json=body)).text)

    found = await ask(include_usage=True, continuous_usage_stats=True)
    counts = [event["usage"]["completion_tokens"] for event in found]
    assert counts == sorted(counts) and counts[0] < counts[-1] == 24
    assert all(event["usage"]["total_tokens"] > event["usage"]["prompt_tokens"] for event in found)
    assert not any("usage" in event for event in await ask(continuous_usage_stats=True))


async def test_there_are_no_more_alternatives_than_tokens() -> None:
    with toy_runner(max_logprobs=1000) as runner:
        assert runner.limits.max_logprobs == runner.limits.num_tokens == 268
