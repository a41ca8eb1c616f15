"""A port that servers of one process share, and nobody else."""

from __future__ import annotations

import contextlib
import socket

import pytest

from pythia_bento.server.grpc.port import reserved

HOST = "127.0.0.1"


def listen(port: int, reuse: int = 1) -> socket.socket:
    """As grpc does."""
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(socket.socket())
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
        one.bind((HOST, port))
        one.listen()
        stack.pop_all()
    return one


def _port_of(one: socket.socket) -> int:
    return int(one.getsockname()[1])


def test_several_listen_on_one_port_and_a_second_service_does_not() -> None:
    with contextlib.ExitStack() as stack:
        with reserved(HOST, 0) as port:
            for _ in range(2):
                stack.enter_context(listen(port))
            with pytest.raises(OSError), reserved(HOST, port):
                pass  # while it is being opened
        with pytest.raises(OSError), reserved(HOST, port):
            pass  # and once it is open


def test_who_listens_without_sharing_is_seen() -> None:
    with listen(0, reuse=0) as taken, pytest.raises(OSError), reserved(HOST, _port_of(taken)):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "localhost"])
def test_hosts_as_grpc_writes_them(host: str) -> None:
    with reserved(host, 0) as port:
        assert port > 0


def test_a_host_that_is_none() -> None:
    with pytest.raises(OSError), reserved("no host", 0):
        pass
