"""BentoML's own clients, streaming included, against what HTTP answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import bentoml
import pytest

from tests.e2e.serving import HTTP, Server

ASKED = {"prompt": "Question: What color is", "max_tokens": 13, "temperature": 0, "logprobs": 1}
# Whose tokens have parts of characters.
FOREIGN = {"prompt": "Finn said 漢字 and é 😀", "max_tokens": 40, "seed": 5, "prompt_logprobs": 0}


@pytest.fixture
def client(server: Server) -> Iterator[bentoml.SyncHTTPClient]:
    with bentoml.SyncHTTPClient(server.url) as client:
        yield client
        client._temp_dir.cleanup()  # which it leaves to the garbage collector, with a warning


def parts_of(text: str) -> list[Any]:
    """The parts of a streamed answer; it ended well."""
    events = [event.removeprefix("data: ") for event in text.split("\n\n")]
    assert events[-2:] == ["[DONE]", ""]
    return [json.loads(event) for event in events[:-2]]


def of_parts(parts: list[Any]) -> list[Any]:
    """What does not depend on how an answer was cut: text, ids, tokens, prompt, and its end."""
    deltas = [delta for part in parts for delta in part["deltas"]]
    return [
        "".join(delta["text"] for delta in deltas),
        [id for delta in deltas for id in delta["token_ids"]],
        [token for delta in deltas for token in delta.get("tokens", ())],
        [token for part in parts for token in part.get("prompt_tokens", ())],
        deltas[-1]["finish_reason"],
    ]


def of_whole(answer: Any) -> list[Any]:
    [output] = answer["outputs"]
    fields = output["text"], output["token_ids"], output.get("tokens", [])
    return [*fields, answer.get("prompt_tokens", []), output["finish_reason"]]


def posted(server: Server, path: str, body: Any) -> Any:
    return HTTP.post(server.url + path, json=body, timeout=60)


@pytest.mark.parametrize("asked", [ASKED, FOREIGN])
def test_a_sync_client_streams_what_it_is_answered_whole(
    server: Server, client: bentoml.SyncHTTPClient, asked: dict[str, Any]
) -> None:
    pieces = list(client.generate_stream(**asked))
    assert all(isinstance(piece, str) and piece.isascii() for piece in pieces)
    found = of_parts(parts_of("".join(pieces)))
    assert found == of_whole(client.generate(**asked))
    assert found == of_whole(posted(server, "/generate", asked).json())


async def test_an_async_client_streams_the_same(server: Server) -> None:
    async with bentoml.AsyncHTTPClient(server.url) as client:
        pieces = [piece async for piece in client.generate_stream(**FOREIGN)]
        whole = await client.generate(**FOREIGN)
        client._temp_dir.cleanup()
    assert of_parts(parts_of("".join(pieces))) == of_whole(whole)


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_over_http_events_are_streamed_as_ever(server: Server, path: str) -> None:
    asked = FOREIGN | ({"stream": True} if path == "/generate" else {})
    answer = posted(server, path, asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = of_parts(parts_of(answer.content.decode()))
    assert found == of_whole(posted(server, "/generate", FOREIGN).json())


def test_what_a_stream_does_not_take_is_said_before_it_begins(
    client: bentoml.SyncHTTPClient,
) -> None:
    with pytest.raises(bentoml.exceptions.InvalidArgument, match="max_tokens must be an int"):
        list(client.generate_stream(prompt="a", max_tokens=-1))
    with pytest.raises(TypeError, match=r"generate_stream: \{'stream'\}"):
        list(client.generate_stream(prompt="a", stream=True))
    with pytest.raises(TypeError, match=r"endpoint generate: \{'stream'\}"):
        client.generate(prompt="a", stream=True)
