"""Messages to and from another process, which is never waited for.

The other side reads and writes with multiprocessing's ``Connection``: bytes behind their number.
"""

from __future__ import annotations

import pickle
import select
import socket
import struct
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

ROOM = 2**18  # bytes that are read at a time; larger messages make more of it for a while
_SIZE, _LARGE = struct.Struct("!i"), struct.Struct("!iQ")  # the latter behind a size of -1
_MOST = 2**31 - 1


class Wire:
    """One side of a pair of sockets. For one thread at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self.theirs = Connection(theirs.detach())
        """The other side, for the process that has it."""
        self._unsent: deque[memoryview] = deque()
        self._read = bytearray(ROOM)
        self._end = 0  # of what was read and is no whole message yet

    def fileno(self) -> int:
        """For ``select``."""
        return self._socket.fileno()

    @property
    def events(self) -> int:
        """For ``poll``: what is to be waited for."""
        return select.POLLIN | (select.POLLOUT if self._unsent else 0)

    def wait(self, seconds: float) -> bool:
        """Until there is something to receive, at most so long; whether there is."""
        poll = select.poll()  # select knows no descriptor above 1,023, and each client has one
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def send(self, message: Any) -> None:
        """Raises OSError where the other side is gone; what finds no room now is kept."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        size = len(data)
        head = _SIZE.pack(size) if size <= _MOST else _LARGE.pack(-1, size)
        self._unsent.append(memoryview(head + data))
        if len(self._unsent) == 1:
            self.flush()

    def flush(self) -> None:
        """Send what was kept, as far as there is room. Raises as ``send``."""
        unsent = self._unsent
        while unsent:
            try:
                count = self._socket.send(unsent[0])
            except BlockingIOError:
                return
            if count == len(unsent[0]):
                unsent.popleft()
            else:
                unsent[0] = unsent[0][count:]

    def receive(self) -> list[Any]:
        """Whole messages that have come, perhaps none; raises OSError or EOFError at the end."""
        if self._end == len(self._read):
            self._read.extend(bytes(self._end))
        try:
            count = self._socket.recv_into(memoryview(self._read)[self._end :])
        except BlockingIOError:
            return []
        if not count:
            raise EOFError
        self._end += count
        return self._whole()

    def close(self) -> None:
        """Nothing more comes or goes; the other side sees the end. Harmless when repeated."""
        self._socket.close()

    def _whole(self) -> list[Any]:
        messages, start = [], 0
        with memoryview(self._read) as read:
            while (place := self._next(start)) is not None:
                begin, start = place
                with read[begin:start] as message:
                    messages.append(pickle.loads(message))
        self._forget(start)
        return messages

    def _next(self, start: int) -> tuple[int, int] | None:
        """Where the next message begins and ends, if it is there."""
        begin = start + _SIZE.size
        if begin > self._end:
            return None
        (size,) = _SIZE.unpack_from(self._read, start)
        if size == -1:
            begin = start + _LARGE.size
            if begin > self._end:
                return None
            _, size = _LARGE.unpack_from(self._read, start)
        return (begin, begin + size) if begin + size <= self._end else None

    def _forget(self, start: int) -> None:
        """Keep what is behind ``start``."""
        left = self._end - start
        if left:
            self._read[:left] = self._read[start : self._end]
        elif len(self._read) > ROOM:
            self._read = bytearray(ROOM)
        self._end = left
