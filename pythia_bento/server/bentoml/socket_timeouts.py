"""Clients that are gone without a word, or that do not read: the system closes their connections.

Both look alike from here: what was sent is not taken. uvicorn has no limit for it, but accepted
connections inherit the options of the socket that listens, which the supervisor has opened. It lets
each worker have those of all services of a Bento: only the service's own is for it to change.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress

PROBES = 3


def set_socket_timeouts(seconds: float, ports: Collection[int] | None) -> None:
    """Let connections end when the other side took nothing, or said nothing, for so long.

    Those to ``ports`` of this process, or, where that is None, to all.

    A client that is there answers the system's probes whatever it does itself; one that does not
    read has a full window, and the limit holds for that too. Only Linux has these options.
    """
    for listener in _listeners():
        with listener:
            if ports is not None and listener.getsockname()[1] not in ports:
                continue
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (
                ("TCP_USER_TIMEOUT", round(seconds * 1000)),
                ("TCP_KEEPIDLE", max(1, round(seconds / 2))),
                ("TCP_KEEPINTVL", max(1, round(seconds / 2 / PROBES))),
                ("TCP_KEEPCNT", PROBES),
            ):
                with suppress(AttributeError, OSError):
                    listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _listeners() -> Iterator[socket.socket]:
    """This process's listening TCP sockets, by descriptors of their own."""
    for number in map(int, _descriptors()):
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue  # of what is no socket, a descriptor would be left over
            found = socket.socket(fileno=os.dup(number))
            is_tcp = found.family in (socket.AF_INET, socket.AF_INET6)
            if is_tcp and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield found
            else:
                found.close()


def _descriptors() -> list[str]:
    try:
        return os.listdir("/proc/self/fd")
    except OSError:
        return []
