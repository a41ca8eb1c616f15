"""Requests that no well-behaved client would send, byte by byte."""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import urlsplit

SECONDS = 60


def exchange(url: str, data: bytes) -> bytes:
    """What the server answers before it closes the connection, or falls silent for SECONDS."""
    where = urlsplit(url)
    answer = bytearray()
    with socket.create_connection((where.hostname, where.port), timeout=SECONDS) as connection:
        # A server that has refused may close while we still send.
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    return bytes(answer)


def request(line: str, *headers: str, body: bytes = b"", close: bool = True) -> bytes:
    """One request of HTTP/1.1; ``Content-Length`` is the caller's business."""
    lines = [line, "Host: localhost", *headers, *(["Connection: close"] if close else [])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def statuses(answer: bytes) -> list[int]:
    """Of all answers on the connection."""
    parts = answer.split(b"HTTP/1.1 ")[1:]
    return [int(part[:3]) for part in parts]
