"""One key does its worst: others are let in at once, over HTTP and gRPC, and get their answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.server.access.keys import digest
from tests import raw_http2
from tests.e2e.faulty import until
from tests.e2e.serving import HTTP, Server, serve

ALICE, BOB = "alices-key-0123456789", "bobs-key-9876543210"
CAROL, DAVE = "carols-key-0123456789", "daves-key-9876543210"
A_MINUTE = 300  # requests of a key
SMALL = {"prompt": "Once", "max_tokens": 3}
GENERATE = "pythia.v1.Pythia/Generate"


@pytest.fixture(scope="module")
def keyed(home: Path) -> Iterator[Server]:
    """Keys of a file beside one of the setting; an hour for clients; otherwise as for everybody."""
    file = home / "keys"
    carol = digest(CAROL).hex()
    file.write_text(f"# by hash\ncarol sha256:{carol}\nbob {BOB}\ndave {DAVE} suspended\n")
    settings = {"key_requests_per_minute": A_MINUTE, "client_timeout": 3600}
    with serve(home, api_keys=f"alice {ALICE}", api_keys_file=file, **settings) as server:
        yield server


@contextlib.asynccontextmanager
async def client(server: Server, key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=300) as http:
        yield http


async def much_of_one_request(alice: httpx.AsyncClient) -> None:
    body = {"prompt": ["Once upon a time"] * 32, "n": 128, "max_tokens": 500, "ignore_eos": True}
    await alice.post("/v1/completions", json=body)


async def many_requests(alice: httpx.AsyncClient) -> None:
    body = {"prompt": "Once upon a time", "n": 128, "max_tokens": 480, "ignore_eos": True}
    await asyncio.gather(*(alice.post("/generate", json=body) for _ in range(20)))


async def many_scores(alice: httpx.AsyncClient) -> None:
    items = [{"prompt": [1 + number % 997] * 500} for number in range(4000)]
    await alice.post("/score", json={"items": items})


@pytest.mark.parametrize("worst", [much_of_one_request, many_requests, many_scores])
async def test_others_are_let_in_beside_a_key_that_holds_its_share(
    keyed: Server, worst: Any
) -> None:
    async with client(keyed, ALICE) as alice, client(keyed, BOB) as bob:
        busy = asyncio.create_task(worst(alice))
        names = ("num_requests_running", "num_requests_waiting")
        while sum(await asyncio.to_thread(keyed.metrics, *names)) < 32:
            assert not busy.done()
            await asyncio.sleep(0.01)
        refused = await alice.post("/generate", json=SMALL | {"n": 64})
        assert refused.status_code == 429, refused.text
        assert "PYTHIA_CALLER_SHARE" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) >= 1
        for _ in range(5):
            answer = await bob.post("/v1/completions", json=SMALL)
            assert answer.status_code == 200, answer.text
            scored = await bob.post("/score", json={"items": [{"prompt": "Once upon"}]})
            assert scored.json()[0]["num_tokens"] == 1
            await over_grpc(keyed)
        assert not busy.done()
        busy.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await busy
    await asyncio.to_thread(keyed.settled)


async def over_grpc(server: Server) -> None:
    metadata = (("authorization", f"Bearer {BOB}"),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = PythiaStub(channel)
        asked = pb.GenerateRequest(prompt=pb.Prompt(text="Once"), sampling={"max_tokens": 3})
        parts = [part async for part in stub.Generate(asked, metadata=metadata)]
        assert parts[-1].summary.num_completion_tokens == 3
        item = pb.ScoreItem(prompt=pb.Prompt(text="Once upon"))
        answer = await stub.Score(pb.ScoreRequest(items=[item]), metadata=metadata)
        assert answer.results[0].score.num_tokens == 1


def test_keys_of_a_file_have_a_rate_of_their_own(keyed: Server) -> None:
    def asked_by(key: str) -> httpx.Response:
        return HTTP.get(f"{keyed.url}/v1/models", headers={"Authorization": f"Bearer {key}"})

    answers = [asked_by(CAROL) for _ in range(A_MINUTE)]
    assert {answer.status_code for answer in answers} == {200}
    refused: list[httpx.Response] = []
    with ThreadPoolExecutor(16) as pool:
        while not refused:  # they come back, five in a second
            answers = list(pool.map(asked_by, [CAROL] * 16))
            refused = [answer for answer in answers if answer.status_code != 200]
    assert refused[0].headers["retry-after"] == "1"  # they come back one by one
    assert asked_by(BOB).status_code == 200
    assert asked_by(DAVE).status_code == 403


def test_sigterm_does_not_wait_for_messages_that_do_not_come(keyed: Server) -> None:
    """The last one here: it ends the server."""
    with contextlib.closing(raw_http2.Connection(keyed.grpc_port)) as connection:
        for number in range(200):
            bearer = ("authorization", f"Bearer {ALICE}")
            connection.send(raw_http2.call(2 * number + 1, f"/{GENERATE}", bearer))
        until(lambda: keyed.metric(f'grpc_open_calls{{method="/{GENERATE}"}}') == 200)
        thread = threading.Thread(target=answer_pings, args=[connection])
        thread.start()
        keyed.process.terminate()
        keyed.process.wait(60)  # raises where it does not end
        thread.join()


def answer_pings(connection: raw_http2.Connection) -> None:
    """As all libraries do; gRPC's waits for 20 seconds where it ends and that is not done."""
    for found in connection.frames():
        if found.kind == raw_http2.PING and not found.flags & raw_http2.ACK:
            connection.send(raw_http2.frame(raw_http2.PING, raw_http2.ACK, payload=found.payload))
