"""Clients that do not read, do not write, or are gone without a word: who else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import psutil
import pytest

from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from tests.deaf import deaf
from tests.e2e.faulty import BODY, all_of, choices, running, switch, until, worker
from tests.e2e.probing import probing
from tests.e2e.raw_http import request
from tests.e2e.serving import Server

HOST = "127.0.0.1"
LONG = {"max_tokens": 480, "stream": True}


def holds(server: Server, client: socket.socket) -> bool:
    """Whether the server has this client's connection open."""
    port = client.getsockname()[1]
    found = worker(server).net_connections("tcp")
    return any(c.status == psutil.CONN_ESTABLISHED and c.raddr.port == port for c in found)


def aborted(server: Server) -> float:
    return server.metric('request_success_total{finished_reason="abort"}')


def asking(server: Server, **fields: Any) -> socket.socket:
    """A client that asks and does not read."""
    body = json.dumps(BODY | fields).encode()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect((HOST, httpx.URL(server.url).port))
    head = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
    client.sendall(head + body)
    return client


async def test_slow_readers_are_cut_off_and_disturb_nobody(failing: Server) -> None:
    expected = choices(await all_of(failing, 4))
    much = {"max_tokens": 500, "n": 20, "logprobs": 20, "stream": True}
    with contextlib.ExitStack() as stack, probing(failing):
        clients = [stack.enter_context(asking(failing, **much)) for _ in range(3)]
        await asyncio.to_thread(until, lambda: all(holds(failing, each) for each in clients))
        assert choices(await all_of(failing, 4)) == expected
        for client in clients:
            client.settimeout(60)
            await asyncio.to_thread(until, lambda client=client: not holds(failing, client))
            with pytest.raises(ConnectionError):
                while client.recv(1 << 20):
                    pass
        failing.settled()


async def test_half_open_connections(failing: Server) -> None:
    where = (HOST, httpx.URL(failing.url).port)
    with contextlib.ExitStack() as stack, probing(failing):
        for _ in range(50):  # say nothing
            stack.enter_context(socket.create_connection(where))
        half = stack.enter_context(socket.create_connection(where))
        half.sendall(b"POST /generate HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n{")
        assert len(choices(await all_of(failing, 4))) == 4
        answer = await asyncio.to_thread(half.recv, 4096)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"within 4 seconds" in answer + await asyncio.to_thread(half.recv, 4096)
        failing.settled()


@pytest.mark.needs("socket filters")
async def test_clients_that_are_gone_without_a_word(failing: Server, place: Path) -> None:
    """Their sequences would go on for most of a minute; all end as aborted before that."""
    expected = choices(await all_of(failing, 4))
    before = aborted(failing)
    switch(place, "slow", 0.1)
    with contextlib.ExitStack() as stack:
        stack.callback((place / "slow").unlink)
        clients = [
            stack.enter_context(asking(failing, **LONG)),
            stack.enter_context(asking(failing, **LONG | {"stream": False})),
            stack.enter_context(_stream_over_grpc(failing)),
        ]
        await running(failing, 3)
        with probing(failing):
            for client in clients:
                stack.enter_context(deaf(client))
            assert choices(await all_of(failing, 4)) == expected
            await asyncio.to_thread(until, lambda: aborted(failing) == before + 3)
            failing.settled()


async def test_a_reader_over_grpc_that_answers_pings_alone(failing: Server, place: Path) -> None:
    """What it would have to read is more than the window that it opens."""
    before = aborted(failing)
    switch(place, "slow", 0.1)
    with contextlib.ExitStack() as stack, probing(failing):
        stack.callback((place / "slow").unlink)
        options = [
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", 1024),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        channel = grpc.insecure_channel(f"{HOST}:{failing.grpc_port}", options)
        with channel:
            sampling = pb.Sampling(max_tokens=480, ignore_eos=True, n=8, logprobs=20)
            request = pb.GenerateRequest(prompt=pb.Prompt(text="Once"), sampling=sampling)
            call = PythiaStub(channel).Generate(request)
            next(call)
            await asyncio.to_thread(until, lambda: aborted(failing) == before + 8)
            failing.settled()
            with pytest.raises(grpc.RpcError) as caught:
                while next(call):  # it reads again
                    pass
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.details() == "the client did not read for 4 seconds"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_closes_its_sending_side_counts_as_gone(
    failing: Server, place: Path, stream: bool
) -> None:
    before = aborted(failing)
    switch(place, "slow", 0.1)
    body = json.dumps({"prompt": "a", "max_tokens": 480, "ignore_eos": True, "stream": stream})
    data = request("POST /v1/completions HTTP/1.1", f"Content-Length: {len(body)}")
    where = urlsplit(failing.url)
    with (
        contextlib.ExitStack() as stack,
        socket.create_connection((where.hostname, where.port), timeout=60) as connection,
    ):
        stack.callback((place / "slow").unlink)
        connection.sendall(data + body.encode())
        until(lambda: failing.metric("num_requests_running") > 0)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert b"[DONE]" not in answer and (stream or answer == b"")
    failing.settled()
    assert aborted(failing) == before + 1


# Some 28 MB, far more than a socket holds, of the 30 that there are.
LARGE = {"prompts": [[5] * 508] * 9, "capture": [{"site": "blocks.*.mlp.hook_post"}]}


def test_the_memory_of_a_capture_whose_reader_stops_goes_to_others(failing: Server) -> None:
    with httpx.Client(timeout=120) as client:
        asked: Any = {"url": f"{failing.url}/v1/activations", "json": LARGE}
        with client.stream("POST", **asked) as stopped:
            assert stopped.status_code == 200
            announced = int(stopped.headers["content-length"])
            parts = stopped.iter_raw()
            size = len(next(parts))
            whole = client.post(**asked)  # waits until the first one was given up
            assert len(whole.content) == announced
            with pytest.raises(httpx.TransportError):
                for part in parts:
                    size += len(part)
            assert size < announced
        with client.stream("POST", **asked) as left:
            assert left.status_code == 200
            next(left.iter_raw())
        until(lambda: failing.metric("capture_bytes_used") == 0)
        assert client.post(**asked).content == whole.content
        failing.settled()
        assert "Traceback" not in failing.log.read_text()


@contextlib.contextmanager
def _stream_over_grpc(server: Server) -> Iterator[socket.socket]:
    """The connection of an open one, whose first message came."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"{HOST}:{server.grpc_port}", options) as channel:
        sampling = pb.Sampling(max_tokens=480, ignore_eos=True)
        request = pb.GenerateRequest(prompt=pb.Prompt(text="Once"), sampling=sampling)
        call = PythiaStub(channel).Generate(request)
        next(call)
        ours = psutil.Process().net_connections("tcp")
        [used] = [c for c in ours if c.raddr and c.raddr.port == server.grpc_port]
        with socket.socket(fileno=os.dup(used.fd)) as connection:
            yield connection
        call.cancel()
