"""Options of the sockets that listen, as accepted connections inherit them."""

from __future__ import annotations

import os
import socket

from pythia_bento.server.bentoml.socket_timeouts import set_socket_timeouts


def test_accepted_connections_have_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        set_socket_timeouts(12, {listener.getsockname()[1]})
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            read = {
                name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            }
    assert list(read.values()) == [12_000, 6, 2, 3]


def test_others_sockets_stay_as_they_are() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        set_socket_timeouts(12, {other.getsockname()[1]})
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        set_socket_timeouts(12, None)
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_nothing_of_this_process_is_opened_a_second_time() -> None:
    """A second end of a pipe, say, would keep whoever reads it waiting for ever."""
    reading, writing = os.pipe()
    set_socket_timeouts(12, None)
    os.close(writing)
    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b""  # its end; while somebody can write, BlockingIOError
    os.close(reading)
