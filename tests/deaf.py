"""A socket to which nothing gets through."""

from __future__ import annotations

import contextlib
import ctypes
import socket
from collections.abc import Iterator

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # of Linux; Python has no names for them


class _Filter(ctypes.Structure):
    """The system's struct sock_fprog."""

    _fields_ = (("count", ctypes.c_ushort), ("code", ctypes.c_void_p))


@contextlib.contextmanager
def deaf(client: socket.socket) -> Iterator[None]:
    """The system drops whatever arrives, before it acknowledges it: for the other side it is gone.

    The filter is one instruction of classic BPF: return 0, the number of bytes to keep. Raises
    PermissionError where a system keeps filters for those who are privileged.
    """
    code = ctypes.create_string_buffer(b"\x06\0\0\0\0\0\0\0")
    program = _Filter(1, ctypes.addressof(code))
    client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(program))
    yield
    client.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
