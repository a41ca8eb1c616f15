"""HTTP/2 frame by frame, as no library would send it. RFC 9113; heads in HPACK without tables."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MAX_CONCURRENT_STREAMS, REFUSED_STREAM = 3, 7
SECONDS = 60


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def call(stream: int, method: str, *metadata: tuple[str, str]) -> bytes:
    """The head of a gRPC call, whose message is to follow."""
    pairs = [
        *((":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "h")),
        *(("content-type", "application/grpc"), ("te", "trailers")),
        *metadata,
    ]
    block = b"".join(b"\0" + _string(name) + _string(value) for name, value in pairs)
    return frame(HEADERS, END_HEADERS, stream, block)


def _string(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()


class Connection:
    """One on which the other side's settings are answered, and nothing else is."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.send(PREFACE + frame(SETTINGS))

    @property
    def name(self) -> str:
        """Of this side, as the server's log has it."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def send(self, data: bytes) -> None:
        """A server that refuses may have closed."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def frames(self) -> Iterator[Frame]:
        """What comes until the server closes; raises TimeoutError where it does not."""
        with contextlib.suppress(ConnectionError):
            while head := self._read(9):
                payload = self._read(int.from_bytes(head[:3], "big"))
                found = Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
                if found.kind == SETTINGS and not found.flags & ACK:
                    self.send(frame(SETTINGS, ACK))
                yield found

    def close(self) -> None:
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (part := self._socket.recv(size - len(data))):
            data += part
        return data


def settings_of(found: Frame) -> dict[int, int]:
    """The settings that a frame has."""
    payload = found.payload
    return {
        int.from_bytes(payload[at : at + 2], "big"): int.from_bytes(payload[at + 2 : at + 6], "big")
        for at in range(0, len(payload), 6)
    }
