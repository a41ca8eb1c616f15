from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from pythia_bento.engine.params import score_request
from pythia_bento.protocol.bodies import NEUTRAL
from pythia_bento.runtime.runner import PythiaRunner
from tests.unit.conftest import app_of
from tests.unit.engine.gate import Gate
from tests.unit.runtime.toy_runner import INFO, POISON, ordered, settled, toy_runner
from tests.unit.turning import until


async def test_plain_answer(complete) -> None:
    answer = await complete(max_tokens=7, temperature=0, ignore_eos=True, user="me", model="toy")
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert (answer["model"], answer["system_fingerprint"]) == (INFO.id, INFO.fingerprint)
    [choice] = answer["choices"]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "length", None)
    prompt = answer["usage"]["prompt_tokens"]
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 7,
        "total_tokens": prompt + 7,
    }


async def test_a_default_seed_means_the_same_answer_again(complete) -> None:
    texts = [(await complete(max_tokens=12))["choices"][0]["text"] for _ in range(2)]
    assert texts[0] == texts[1] != (await complete(max_tokens=12, seed=1))["choices"][0]["text"]


async def test_lists_of_prompts_answer_as_each_alone(complete, runner: PythiaRunner) -> None:
    prompts = ["the end", "a", "in all", "the"]
    options = {"max_tokens": 6, "n": 2, "temperature": 1.5, "logprobs": 2}
    together = await complete(prompt=prompts, **options)
    assert [choice["index"] for choice in together["choices"]] == list(range(8))
    alone = []
    for prompt in prompts:
        alone += (await complete(prompt=prompt, **options))["choices"]
    for index, choice in enumerate(alone):
        assert together["choices"][index] == choice | {"index": index}
    by_ids = await complete(prompt=[runner.tokenizer.encode(p) for p in prompts], **options)
    assert by_ids["choices"] == together["choices"]
    one = await complete(prompt=runner.tokenizer.encode("a"), **options)
    assert [c["text"] for c in one["choices"]] == [c["text"] for c in alone[2:4]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n": 3, "temperature": 1.2},
        {"logprobs": 3, "echo": True},
        {"logprobs": 0, "stop": ["e", "t"], "temperature": 1.0},
        {"prompt": ["the", "in"], "echo": True, "max_tokens": 0, "logprobs": 1},
        {"prompt": [[5, 6], [7, 8, 9]], "n": 2, "logprobs": 2},
        {"stop": ["e", "t"], "include_stop_str_in_output": True, "skip_special_tokens": False},
        {"truncate_prompt_tokens": 1, "echo": True, "frequency_penalty": 2, "logprobs": 1},
    ],
)
async def test_the_stream_says_the_same(client, complete, options: dict) -> None:
    body = {"prompt": "the end", "max_tokens": 20, "stream_options": {"include_usage": True}}
    body |= {"stream": True} | options
    plain = await complete(**{"max_tokens": 20} | options)
    response = await client.post("/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    *events, done = _events(response.text)
    assert done == "[DONE]"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == plain["usage"]
    joined: dict[int, dict] = {}
    for event in events[:-1]:
        assert event["usage"] is None
        [choice] = event["choices"]
        _join(joined.setdefault(choice["index"], choice), choice)
    assert [joined[index] for index in sorted(joined)] == plain["choices"]


async def test_a_stream_without_options_has_no_usage(client) -> None:
    response = await client.post("/completions", json={"prompt": "a", "stream": True})
    *events, done = _events(response.text)
    assert done == "[DONE]"
    assert all("usage" not in event for event in events)


async def test_chat_is_refused_with_what_to_use_instead(client) -> None:
    body = {"model": "toy", "messages": [{"role": "user", "content": "a"}], "stream": True}
    response = await client.post("/chat/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert "not tuned for chat" in error["message"] and "/v1/completions" in error["message"]


@pytest.mark.parametrize("usage", [False, True])
async def test_obfuscated_events_say_the_same_in_lengths_that_tell_little(client, usage) -> None:
    options = {"include_usage": usage, "include_obfuscation": False}
    body = {"prompt": "a", "max_tokens": 30, "stream": True, "stream_options": options, "seed": 3}
    plain = await client.post("/completions", json=body)
    options["include_obfuscation"] = True
    filled = await client.post("/completions", json=body)
    events = _events(filled.text)[:-1]
    lengths = {len(line) for line in filled.text.splitlines() if '"obfuscation"' in line}
    assert len(lengths) < len({len(line) for line in plain.text.splitlines()})
    for event in events:
        filler = event.pop("obfuscation", None)
        assert (filler is None) == (event["choices"] == [])
    assert [event["choices"] for event in events] == [
        event["choices"] for event in _events(plain.text)[:-1]
    ]
    assert '"obfuscation"' not in plain.text


async def test_an_error_in_the_middle_of_a_stream_is_an_event(client) -> None:
    body = {"prompt": [[5, 6], [POISON, 5]], "max_tokens": 50, "stream": True}
    response = await client.post("/completions", json=body)
    assert response.status_code == 200
    last = _events(response.text)[-1]
    assert last["error"]["code"] == "non_finite_logits"
    response = await client.post("/completions", json=body | {"stream": False})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "non_finite_logits"


async def test_what_evaluation_harnesses_ask(complete, runner: PythiaRunner) -> None:
    prompts = [[5, 6, 7, 8, 9], [20, 21], [33]]
    answer = await complete(
        prompt=prompts, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True
    )
    for prompt, choice in zip(prompts, answer["choices"], strict=True):
        logprobs = choice["logprobs"]
        assert len(logprobs["tokens"]) == len(prompt) + 1
        assert logprobs["tokens"][:-1] == [runner.tokenizer.token_text(id) for id in prompt]
        assert (logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]) == (None, None)
        [scored] = await runner.score([score_request(tuple(prompt), 1)])
        expected = [token.logprob for token in scored.prompt_logprobs or ()]
        assert logprobs["token_logprobs"][1:-1] == expected
        # Greedy is judged by equality of floats: the last token was chosen greedily. (This model,
        # unlike a trained one, may like rows without a token best.)
        top = logprobs["top_logprobs"][-1]
        best = max(value for token, value in top.items() if not token.startswith("<|no token"))
        assert logprobs["token_logprobs"][-1] == best


async def test_offsets_point_into_the_text(complete) -> None:
    answer = await complete(prompt="thé all end", echo=True, logprobs=1, max_tokens=3, top_k=1)
    [choice] = answer["choices"]
    logprobs, text = choice["logprobs"], choice["text"]
    assert text.startswith("thé all end")
    for token, start in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        if not token.startswith(("bytes:", "<|")):
            assert text[start : start + len(token)] == token


async def test_the_token_itself_is_always_among_the_alternatives(complete) -> None:
    answer = await complete(max_tokens=10, logprobs=0, temperature=5.0)
    logprobs = answer["choices"][0]["logprobs"]
    for token, value, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert top == {token: value}


async def test_stops_and_bias(complete, runner: PythiaRunner) -> None:
    [the] = runner.tokenizer.encode("the")
    answer = await complete(temperature=0, logit_bias={str(the): 100}, stop=["ethe", "x"])
    [choice] = answer["choices"]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (
        "th",
        "stop",
        "ethe",
    )
    biased = await complete(max_tokens=3, temperature=0, logit_bias={"5": 100}, logprobs=0)
    assert set(biased["choices"][0]["logprobs"]["tokens"]) == {runner.tokenizer.token_text(5)}
    stopped = await complete(
        max_tokens=9, temperature=0, logit_bias={"5": 100}, stop_token_ids=[5], min_tokens=2
    )
    assert stopped["choices"][0]["stop_reason"] == 5
    assert stopped["usage"]["completion_tokens"] == 3


async def test_neutral_values_change_nothing(complete) -> None:
    plain = await complete(n=2, logprobs=1, max_tokens=6)
    options = NEUTRAL | {
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1,
        "best_of": 2,
        "add_special_tokens": False,
        "spaces_between_special_tokens": False,
        "top_k": -1,
        **dict.fromkeys(("stop", "seed", "logit_bias", "prompt_logprobs", "stream_options")),
    }
    neutral = await complete(n=2, logprobs=1, max_tokens=6, **options)
    assert neutral["choices"] == plain["choices"]


async def test_models(client) -> None:
    listed = (await client.get("/models")).json()
    assert listed["object"] == "list"
    [card] = listed["data"]
    assert (card["id"], card["max_model_len"]) == ("toy@step3", 64)
    assert (await client.get("/models/toy")).json() == card
    missing = await client.get("/models/EleutherAI/toy")
    assert missing.status_code == 404
    assert "toy@step3" in missing.json()["error"]["message"]


async def test_before_the_model_is_loaded() -> None:
    transport = httpx.ASGITransport(app_of(None))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/v1/models")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_unavailable"


async def test_a_full_server_says_when_to_come_again() -> None:
    gate = Gate()
    with toy_runner(gate=gate, max_batch_size=1, max_queue=0) as runner:
        transport = httpx.ASGITransport(app_of(runner))
        async with httpx.AsyncClient(transport=transport, base_url="http://test/v1") as client:
            body = {"prompt": "a", "max_tokens": 30, "ignore_eos": True}
            first = asyncio.create_task(client.post("/completions", json=body))
            await gate.held()
            second = await client.post("/completions", json=body)
            assert second.status_code == 429
            assert second.headers["retry-after"] == "1"
            assert second.json()["error"]["type"] == "overloaded_error"
            gate.open()
            assert (await first).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_sequence(stream: bool) -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        body = json.dumps({"prompt": "a", "max_tokens": 55, "ignore_eos": True, "stream": stream})
        gone, sent = asyncio.Event(), []
        messages = [{"type": "http.request", "body": body.encode(), "more_body": False}]

        async def receive() -> dict:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict) -> None:
            sent.append(message)

        request = asyncio.create_task(app_of(runner)(_scope(), receive, send))
        gate.open(4)
        await gate.held()
        await until(lambda: sent or not stream)
        gone.set()
        await request
        await ordered(runner)
        gate.open()
        settled(runner)
        assert runner.stats().generation_tokens < 40
        assert sent[0]["status"] == (200 if stream else 499)


async def test_a_client_that_left_before_the_first_event(runner: PythiaRunner) -> None:
    body = b'{"prompt": "a", "max_tokens": 55, "ignore_eos": true, "stream": true}'
    messages = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": body, "more_body": False},
    ]

    async def receive() -> dict:
        return messages.pop()

    statuses: list[int] = []

    async def send(message: dict) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        if 499 not in statuses:
            await asyncio.Event().wait()  # nobody reads

    await app_of(runner)(_scope(), receive, send)
    assert statuses in ([200], [499])  # as far as it came before it was seen that nobody is there
    settled(runner)


def _scope() -> dict:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "POST",
        "path": "/v1/completions",
        "raw_path": b"/v1/completions",
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }


def _events(text: str) -> list:
    assert text.endswith("\n\n")
    parts = [part.removeprefix("data: ") for part in text[:-2].split("\n\n")]
    return [part if part == "[DONE]" else json.loads(part) for part in parts]


def _join(whole: dict, delta: dict) -> None:
    if whole is delta:
        return
    whole["text"] += delta["text"]
    for name in ("finish_reason", "stop_reason"):
        whole[name] = delta[name]
    for name, column in (delta["logprobs"] or {}).items():
        whole["logprobs"][name] += column
