"""The service as its users see it: real processes, the ``openai`` client, plain HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import struct
from collections.abc import Iterator

import httpx
import pytest

from pythia_bento import __version__
from pythia_bento.checkpoints.bundle import find_bundled
from pythia_bento.protocol.bodies import NEUTRAL, CompletionRequest
from tests.e2e.serving import MAX_BODY, Server
from tests.later import openai

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield http


def test_openai_client_completes_and_streams_the_same(client: openai.OpenAI) -> None:
    options = {"model": "bundled", "prompt": PROMPT, "max_tokens": 40, "n": 2, "seed": 7}
    plain = client.completions.create(**options)
    texts, usage = ["", ""], None
    stream = client.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
        usage = chunk.usage or usage
    assert texts == [choice.text for choice in plain.choices]
    assert usage == plain.usage
    assert plain.usage and plain.usage.completion_tokens > 20
    assert plain.system_fingerprint and plain.system_fingerprint.endswith("-cpu-w8a16")


def test_openai_client_reads_logprobs(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="bundled@main", prompt=PROMPT, max_tokens=5, logprobs=3, echo=True, temperature=0
    )
    [choice] = answer.choices
    logprobs = choice.logprobs
    assert choice.text.startswith(PROMPT)
    assert logprobs and logprobs.tokens and logprobs.top_logprobs and logprobs.token_logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.token_logprobs[0] is None
    for value, top in list(zip(logprobs.token_logprobs, logprobs.top_logprobs, strict=True))[-5:]:
        assert value == max(top.values())  # greedy, and the same float


def test_openai_client_sends_every_field(client: openai.OpenAI, http: httpx.Client) -> None:
    known = {
        "model": "bundled",
        "prompt": ["Once upon a time", "The wind"],
        **{"n": 2, "best_of": 3, "max_tokens": 16, "temperature": 1.2, "top_p": 0.9, "seed": 11},
        **{"presence_penalty": 0.3, "frequency_penalty": 0.2, "logit_bias": {"12": -5}},
        **{"logprobs": 2, "echo": True, "stop": ["river", "\n"], "user": "u", "suffix": ""},
    }
    added = {
        **{"min_tokens": 3, "top_k": 50, "min_p": 0.01, "repetition_penalty": 1.1},
        **{"prompt_logprobs": 3, "stop_token_ids": [5], "ignore_eos": True},
        **{"include_stop_str_in_output": True, "skip_special_tokens": False},
        **{"truncate_prompt_tokens": 3, "priority": -3, "return_token_ids": True},
        **{"return_tokens_as_token_ids": True, "add_special_tokens": True},
        **{"spaces_between_special_tokens": True, **NEUTRAL},
        **{"structured_outputs": {"regex": "[^0-9]{9,}"}},
        "interventions": [{"site": "blocks.1.attn.hook_z", "op": "scale", "scale": 0.5}],
    }
    # What is asked for below, and logits, which one continuation alone may have.
    fields = CompletionRequest.model_fields.keys() - {"stream", "stream_options", "logits"}
    assert fields | NEUTRAL.keys() == known.keys() | added.keys()
    answer = client.completions.create(**known, extra_body=added)
    raw = http.post("/v1/completions", json=known | added).json()
    assert answer.model_dump()["choices"] == raw["choices"]
    assert answer.usage and answer.usage.prompt_tokens == 2 + 3
    assert answer.usage.completion_tokens >= 2 * 3 * 3  # all of best_of
    for choice in raw["choices"]:
        ids = choice["prompt_token_ids"] + choice["token_ids"]
        assert choice["logprobs"]["tokens"] == [f"token_id:{id}" for id in ids]
        assert len(choice["prompt_logprobs"]) == len(choice["prompt_token_ids"])
    streamed: dict[int, str] = {}
    unranked = known | {"best_of": 2, "stream_options": {"include_usage": True}, "stream": True}
    for chunk in client.completions.create(**unranked, extra_body=added):
        for part in chunk.choices:
            streamed[part.index] = streamed.get(part.index, "") + part.text
    plain = client.completions.create(**known | {"best_of": 2}, extra_body=added)
    assert [streamed[choice.index] for choice in plain.choices] == [c.text for c in plain.choices]


def test_tokenizer_at_the_root(http: httpx.Client) -> None:
    info = http.get("/tokenizer_info").json()
    [end] = http.post("/tokenize", json={"prompt": info["eos_token"]}).json()["tokens"]
    assert end == 0
    found = http.post("/tokenize", json={"prompt": PROMPT, "add_special_tokens": False}).json()
    assert found["count"] == len(found["tokens"]) == 4
    text = http.post("/detokenize", json={"tokens": found["tokens"]}).json()
    assert text == {"prompt": PROMPT}
    assert http.get("/tokenize").status_code == 405
    assert http.post("/detokenize", json={"tokens": [10**6]}).status_code == 400


def test_openai_client_embeds(client: openai.OpenAI, http: httpx.Client) -> None:
    texts = [PROMPT, "Question: What color is"]
    plain = client.embeddings.create(model="bundled", input=texts, encoding_format="float")
    packed = client.embeddings.create(model="bundled", input=texts)  # in base64, of itself
    assert [one.index for one in packed.data] == [0, 1]
    for one, other in zip(plain.data, packed.data, strict=True):
        assert as_float32(one.embedding) == as_float32(other.embedding)
        assert math.isclose(sum(value**2 for value in one.embedding), 1, rel_tol=1e-5)
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 8
    extra = {"pooling": "last", "normalize": False}
    [last] = client.embeddings.create(model="bundled", input=PROMPT, extra_body=extra).data
    raw = http.post("/v1/embeddings", json={"input": PROMPT, **extra}).json()
    assert as_float32(last.embedding) == as_float32(raw["data"][0]["embedding"])
    assert raw["pooling"] == "last"
    with pytest.raises(openai.BadRequestError, match="dimensions must be 128"):
        client.embeddings.create(model="bundled", input=PROMPT, dimensions=5)


def as_float32(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def test_openai_client_reads_errors_and_models(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nearest names are bundled"):
        client.completions.create(model="bundeld", prompt=PROMPT)
    with pytest.raises(openai.BadRequestError, match="max_tokens is 999"):
        client.completions.create(model="bundled", prompt=PROMPT, max_tokens=999, stream=True)
    model, *others = client.models.list().data
    assert len(others) == 5
    for one in (model, *others):
        assert client.models.retrieve(one.id) == one
    assert client.models.retrieve("bundled").id == model.id
    step = find_bundled("main")
    provenance = model.model_dump()["provenance"]
    assert provenance["commit"] == step.commit
    assert provenance["files"] == {name: file.sha256 for name, file in step.files.items()}
    assert provenance["batch_invariant"] is True
    assert step.commit[:12] in model.model_dump()["system_fingerprint"]


BAD = [
    (b'{"prompt": "a"', 400, "not valid JSON"),
    (b'{"prompt": "a", "temperature": 1e999}', 400, "temperature must be a finite number"),
    (b'{"prompt": "\\ud83dx"}', 400, "lone surrogate"),
    pytest.param(b'{"prompt": "' + b"a" * MAX_BODY + b'"}', 413, str(MAX_BODY), id="too large"),
    ({"prompt": 7}, 400, "prompt must be a string"),
    ({"prompt": ""}, 400, "prompt is empty"),
    ({"prompt": PROMPT, "colour": "red"}, 400, "colour is not a field"),
    ({"prompt": PROMPT, "model": "pythia-1b"}, 404, "'pythia-1b' is not served"),
    ({"prompt": [5] * 513}, 400, "prompt has 513 tokens, but the model's context is 512"),
    ({"prompt": [5] * 512, "max_tokens": 2}, 400, "together 514"),
    ({"prompt": PROMPT, "max_tokens": -1}, 400, "max_tokens must be an integer at least 0"),
    ({"prompt": PROMPT, "temperature": -1}, 400, "temperature must be"),
    ({"prompt": [10**6]}, 400, "1000000"),
    ({"prompt": PROMPT, "top_k": 10**20}, 400, "top_k must be an integer between 0 and 2147483647"),
]


@pytest.mark.parametrize("path", ["/v1/completions", "/generate"])
@pytest.mark.parametrize(("body", "status", "words"), BAD)
def test_bad_input(http: httpx.Client, path: str, body: object, status: int, words: str) -> None:
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = http.post(path, **content)
    error = response.json()["error"]
    assert response.status_code == status, error
    assert words in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert http.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/generate"])
def test_the_outermost_values_are_served(http: httpx.Client, path: str) -> None:
    body = {"prompt": PROMPT, "max_tokens": 3, "logprobs": 20, "seed": 2**64 - 1}
    for extremes in (
        {"top_k": 2**31 - 1, "temperature": 100, "top_p": 1, "min_p": 1, "repetition_penalty": 100},
        {"top_k": -1, "temperature": 1e-6, "top_p": 5e-324, "min_p": 5e-324},
        {"seed": -(2**63), "repetition_penalty": 0.01, "presence_penalty": -2, "min_p": 0},
        {"logit_bias": {str(id): -100 for id in range(1000)}, "frequency_penalty": 2},
    ):
        response = http.post(path, json=body | extremes)
        assert response.status_code == 200, response.text
    assert http.get("/readyz").status_code == 200


def test_chunked_bodies_and_wrong_paths(http: httpx.Client) -> None:
    response = http.post("/generate", content=(b" " * 10_000 for _ in range(MAX_BODY // 9000)))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "payload_too_large")
    for method, path, status in (
        ("GET", "/v1/engines", 404),
        ("GET", "/v1/completions", 405),
        ("GET", "/generate", 405),
        ("POST", "/nowhere", 404),
    ):
        response = http.request(method, path)
        assert response.status_code == status
        assert path in response.json()["error"]["message"]


def test_whatever_the_body_is_called_it_is_json(http: httpx.Client) -> None:
    answers = [
        http.post(path, content=b'{"prompt": "Once", "seed": 3}', headers={"content-type": kind})
        for path in ("/generate", "/v1/completions")
        for kind in ("application/x-www-form-urlencoded", "application/vnd.bentoml+pickle")
    ]
    # The latter is for a dependency's private socket alone.
    assert [answer.status_code for answer in answers] == [200, 415] * 2


def test_what_tools_and_browsers_probe_for(http: httpx.Client) -> None:
    for path in ("/health", "/ping"):
        answer = http.get(path)
        assert (answer.status_code, answer.content) == (200, b"")
    assert http.get("/version").json() == {"version": __version__}
    assert http.get("/openapi.json").json() == http.get("/docs.json").json()
    assert http.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
    chat = http.post("/v1/chat/completions", json={"messages": []})
    assert chat.status_code == 400 and "/v1/completions" in chat.json()["error"]["message"]


def test_generate_is_the_same_model(http: httpx.Client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 12, "n": 2, "seed": 5, "logprobs": 1}
    native = http.post("/generate", json=body).json()
    other = http.post("/v1/completions", json=body).json()
    assert [output["text"] for output in native["outputs"]] == [
        choice["text"] for choice in other["choices"]
    ]
    assert native["model"] == other["model"]
    assert [token["logprob"] for token in native["outputs"][1]["tokens"]] == other["choices"][1][
        "logprobs"
    ]["token_logprobs"]


def test_a_bad_item_fails_alone(http: httpx.Client) -> None:
    good = {"prompt": PROMPT, "continuation": ", there was a", "logprobs": 2}
    bad = [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": [10**6]}, "1000000"),
        ({"prompt": [5] * 600}, "600 tokens"),
        ({"prompt": 1}, "must be a string"),
        ({"text": "a"}, "prompt is required"),
        ("a", "an item must be a JSON object"),
        ({"prompt": "a", "logprobs": 99}, "prompt_logprobs"),
    ]
    alone = http.post("/score", json={"items": [good]}).json()
    mixed = http.post("/score", json={"items": [good, *(item for item, _ in bad), good]}).json()
    assert [mixed[0], mixed[-1]] == alone * 2
    for result, (_, words) in zip(mixed[1:-1], bad, strict=True):
        assert words in result["error"]["message"]
    [result] = alone
    assert result["logprob"] == sum(token["logprob"] for token in result["tokens"])
    assert "".join(token["text"] for token in result["tokens"]) == good["continuation"]
    assert all(len(token["top"]) == 2 for token in result["tokens"])


def test_score_refuses_what_is_no_list_of_items(http: httpx.Client) -> None:
    for body, words in (({"items": 3}, "items"), ({}, "items is required"), ([], "object")):
        response = http.post("/score", json=body)
        assert response.status_code == 400, response.text
        assert words in response.json()["error"]["message"]
    assert http.post("/score", json={"items": []}).json() == []


async def test_many_at_once_answer_as_each_alone(server: Server) -> None:
    bodies = [_random_body(index) for index in range(24)]
    items = [{"prompt": body["prompt"]} for body in bodies]
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
        alone = [(await http.post("/v1/completions", json=body)).json() for body in bodies]
        scored = [(await http.post("/score", json={"items": [item]})).json() for item in items]
        together = await asyncio.gather(
            *(http.post("/v1/completions", json=body) for body in reversed(bodies)),
            *(http.post("/score", json={"items": [item]}) for item in items),
        )
    answers = [response.json() for response in together]
    for one, other in zip(alone, reversed(answers[:24]), strict=True):
        assert (one["choices"], one["usage"]) == (other["choices"], other["usage"])
    assert answers[24:] == scored


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_sequences(server: Server, stream: bool) -> None:
    before = server.metric("generation_tokens_total")
    body = {"prompt": PROMPT, "max_tokens": 500, "n": 64, "ignore_eos": True, "stream": stream}
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        request = asyncio.create_task(http.post("/v1/completions", json=body))
        while server.metric("generation_tokens_total") == before:
            await asyncio.sleep(0.01)
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request
    server.settled()
    assert server.metric("generation_tokens_total") - before < 64 * 500


def test_probes_and_metrics(server: Server, http: httpx.Client) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert http.get(path).status_code == 200
    assert server.metric("kv_blocks") > 0
    assert server.metric("steps_total") > 0


def _random_body(index: int) -> dict:
    rng = random.Random(index)
    words = [rng.choice(["Once", " the", " field", " boy", " named", " a"]) for _ in range(40)]
    return {
        "prompt": "".join(words[: rng.randint(1, 40)]),
        "max_tokens": rng.randint(1, 30),
        "temperature": rng.choice([0, 0.7, 1.3]),
        "top_p": rng.choice([1, 0.9]),
        "frequency_penalty": rng.choice([0, 0, 0.5]),
        "repetition_penalty": rng.choice([1, 1, 1.2]),
        "seed": index,
        "n": rng.choice([1, 1, 3]),
        "logprobs": rng.choice([None, 0, 3]),
        "echo": rng.choice([False, True]),
    }
