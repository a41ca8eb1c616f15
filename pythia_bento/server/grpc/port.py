"""A port on which several servers of this process listen, and nobody else's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """The port, of the system's choice for 0, to be bound meanwhile with SO_REUSEPORT.

    That option lets in whoever has it too, a second service of the same user among them. What holds
    the port here had to be alone on it, and has the option only since. Raises OSError.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has ended is no matter
        holder.bind(address)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield int(holder.getsockname()[1])
