"""A server that has few descriptors, or many clients that ask for nothing."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from pythia_bento.client import Client
from tests.e2e.faulty import worker
from tests.e2e.serving import HTTP, Server

IDLE = 2000  # connections that ask for nothing
FEW = 256  # descriptors; an idle server takes some 60
AT_ONCE = 100  # connections that come or leave before somebody asks
OTHERS = 16  # descriptors that libraries may open meanwhile
BODY = {"prompt": "a", "max_tokens": 2}


@pytest.fixture
def process(server: Server) -> Iterator[psutil.Process]:
    """The server's, whose limit of descriptors is a test's to set; all of them come back."""
    process = worker(server)
    before, limits = process.num_fds(), process.rlimit(psutil.RLIMIT_NOFILE)
    yield process
    process.rlimit(psutil.RLIMIT_NOFILE, limits)
    assert_new_ones_are_served(server)
    wait(lambda: process.num_fds() <= before + OTHERS)


def test_thousands_of_idle_connections_are_in_nobodys_way(
    server: Server, process: psutil.Process
) -> None:
    process.rlimit(psutil.RLIMIT_NOFILE, (2 * IDLE, limit_of(process)))
    with room_for(IDLE), idle_clients(server, IDLE):
        wait(lambda: process.num_fds() > IDLE)
        assert_new_ones_are_served(server)


def test_without_descriptors_those_who_are_here_are_served(
    server: Server, process: psutil.Process
) -> None:
    """Who comes then is turned away, until others leave."""
    with httpx.Client(base_url=server.url, timeout=60) as here, grpc_client(server) as there:
        assert here.get("/livez").is_success and there.info()
        assert process.num_fds() < FEW
        process.rlimit(psutil.RLIMIT_NOFILE, (FEW, limit_of(process)))
        with idle_clients(server, FEW, here):
            wait(lambda: process.num_fds() >= FEW - 1)
            for _ in range(3):
                assert here.get("/livez").is_success
                assert here.post("/generate", json=BODY).is_success
                assert there.generate("a", max_tokens=2).outputs[0].finish_reason == "length"
        assert_new_ones_are_served(server)


def assert_new_ones_are_served(server: Server) -> None:
    assert HTTP.get(f"{server.url}/livez").is_success
    assert HTTP.post(f"{server.url}/generate", json=BODY).is_success
    with grpc_client(server) as client:
        assert client.info()


def grpc_client(server: Server) -> Client:
    return Client(f"grpc://127.0.0.1:{server.grpc_port}", timeout=60)


@contextmanager
def idle_clients(server: Server, count: int, witness: httpx.Client = HTTP) -> Iterator[None]:
    """So many connections; ``witness`` asks whether the server lives as they come and leave."""
    where = urlsplit(server.url)
    with ExitStack() as stack:
        for _ in range(0, count, AT_ONCE):
            some = stack.enter_context(ExitStack())
            stack.callback(lambda: witness.get(f"{server.url}/livez").raise_for_status())
            for _ in range(min(count, AT_ONCE)):
                some.enter_context(socket.create_connection((where.hostname, where.port), 60))
            assert witness.get(f"{server.url}/livez").is_success
        yield


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """For so many descriptors more of this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2 * count), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def limit_of(process: psutil.Process) -> int:
    """What nobody may go beyond."""
    _, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    return int(hard)


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)
