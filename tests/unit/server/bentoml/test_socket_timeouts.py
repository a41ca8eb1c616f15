"""Options of the sockets that listen, as accepted connections inherit them."""

from __future__ import annotations

import socket

from pythia_bento.server.bentoml.socket_timeouts import set_socket_timeouts


def test_accepted_connections_have_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        set_socket_timeouts(12)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            read = {
                name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            }
    assert list(read.values()) == [12_000, 6, 2, 3]
