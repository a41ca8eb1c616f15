"""Sweeps of a real server, over HTTP and gRPC: the answers of each step asked alone."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import httpx

from pythia_bento.client import AsyncClient, Client, End, Failed, Row, Score, ScoreItem, SweepItem
from pythia_bento.client import Checkpoint as Told
from tests.e2e.serving import HTTP, Server

STEPS = (0, 64, 256, 512, 1000, 3000)
MODELS = [f"bundled@step{step}" for step in STEPS]
TEXTS = ["Once upon a time", "The cat sat on the mat.", "Question: What color is the sky?"]
ITEMS = [
    SweepItem(text, continuation, id=str(number))
    for number, text in enumerate(TEXTS)
    for continuation in (None, " there was")
]
TIMES = " times upon a time" * 30  # more of it in a sweep than is computed while a client stands


def urls(server: Server) -> list[str]:
    return [server.url, f"grpc://127.0.0.1:{server.grpc_port}"]


def scored(client: Client, model: str) -> list[tuple[float, int, bool, list[tuple[int, float]]]]:
    items = [ScoreItem(item.prompt, item.continuation) for item in ITEMS]
    found = client.score(items, model=model)
    return [
        (one.logprob, one.num_tokens, one.is_greedy, [(t.id, t.logprob) for t in one.tokens])
        for one in found
        if isinstance(one, Score)
    ]


def of_row(row: Row) -> tuple[float | None, int | None, bool | None, list[tuple[int, float]]]:
    tokens = list(zip(row.token_ids or (), row.logprobs or (), strict=True))
    return row.logprob, row.num_tokens, row.is_greedy, tokens


def test_a_sweep_is_what_each_step_says_alone(shelf: Server) -> None:
    """Bit by bit, and over both transports the same."""
    with Client(shelf.url) as client:
        alone = [scored(client, model) for model in MODELS]
        prints = [client.info(model).fingerprint for model in MODELS]
    for url in urls(shelf):
        with Client(url) as client:
            events = list(client.sweep(ITEMS, task={"type": "score", "tokens": True}))
        told = [event for event in events if isinstance(event, Told)]
        assert [(one.model, one.step, one.index) for one in told] == [
            (f"bundled@step{step}", step, index) for index, step in enumerate(STEPS)
        ]
        assert [one.system_fingerprint for one in told] == prints
        rows = {(row.checkpoint, row.item): row for row in events if isinstance(row, Row)}
        assert len(rows) == len(MODELS) * len(ITEMS) and events[-1] == End(6, 0)
        for (checkpoint, item), row in rows.items():
            assert of_row(row) == alone[checkpoint][item]
            assert row.id == ITEMS[item].id


def test_a_generated_row_is_what_generate_says(shelf: Server) -> None:
    options: dict[str, Any] = {"max_tokens": 6, "temperature": 1.0, "seed": 3, "logprobs": 0}
    for url in urls(shelf):
        with Client(url) as client:
            events = list(
                client.sweep(TEXTS, steps=[64, 3000], task={"type": "generate", **options})
            )
            rows = [event for event in events if isinstance(event, Row)]
            assert len(rows) == 6
            for row in rows:
                model = MODELS[(1, 5)[row.checkpoint]]
                answer = client.generate(TEXTS[row.item], model=model, **options)
                assert row.text == answer.text
                assert row.token_ids == tuple(answer.outputs[0].token_ids)
                assert row.logprobs == tuple(token.logprob for token in answer.outputs[0].tokens)


def test_what_cannot_be_had_is_told_and_the_rest_is_there(shelf: Server) -> None:
    for url in urls(shelf):
        with Client(url) as client:
            events = list(client.sweep(["a b"], steps=[0, 65, 512]))
        failed = [event for event in events if isinstance(event, Failed)]
        assert [(one.model, one.error.code) for one in failed] == [
            ("bundled@step65", "model_not_found")
        ]
        assert sum(isinstance(event, Row) for event in events) == 2 and events[-1] == End(2, 1)


async def test_clients_that_leave_in_the_middle_end_their_sweeps(shelf: Server) -> None:
    """And the engine has nothing left to do, and all its blocks."""
    texts = [f"{number}{TIMES}" for number in range(2000)]
    for url in urls(shelf):
        async with AsyncClient(url) as client:
            events = client.sweep(texts)
            async for event in events:
                if isinstance(event, Row):
                    break
            before = shelf.metric("prompt_tokens_total")
            await events.aclose()
        await asyncio.to_thread(shelf.settled)
        # Six times two thousand texts of more than a hundred tokens were asked for.
        assert shelf.metric("prompt_tokens_total") - before < 12_000 * 100 / 3


async def test_answers_come_beside_a_sweep(shelf: Server) -> None:
    """While one sweeps another is answered; most of the sweep would be told later."""
    texts = [f"{number}{TIMES}" for number in range(2000)]
    async with AsyncClient(shelf.url) as client, httpx.AsyncClient() as http:
        count = 0
        asked: asyncio.Task[httpx.Response] | None = None
        async with aclosing(client.sweep(texts)) as events:
            async for event in events:
                count += isinstance(event, Row)
                if asked is None and count == 50:
                    body = {"prompt": "Once upon", "max_tokens": 2, "model": "bundled@step3000"}
                    asked = asyncio.ensure_future(
                        http.post(f"{shelf.url}/v1/completions", json=body, timeout=60)
                    )
                if asked is not None and asked.done():
                    break
        assert asked is not None and asked.result().status_code == 200
        assert 50 <= count < 6000
    await asyncio.to_thread(shelf.settled)


def test_plain_curl_reads_lines(server: Server) -> None:
    body = {"items": [{"prompt": "a b c"}], "steps": "log"}
    lines = HTTP.post(f"{server.url}/v1/sweep", json=body, timeout=60).text.splitlines()
    kinds = [json.loads(line)["event"] for line in lines]
    assert kinds == ["start", *["checkpoint", "row", "done"] * 5, "end"]
