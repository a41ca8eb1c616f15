from __future__ import annotations

import fcntl
import pickle
import resource
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pythia_bento.runtime.wire import ROOM, Wire

LARGE = bytes(4 * ROOM)


@pytest.fixture
def wire() -> Iterator[Wire]:
    found = Wire()
    yield found
    found.close()
    found.theirs.close()


def sent(wire: Wire, *messages: Any) -> None:
    for message in messages:
        wire.theirs.send_bytes(pickle.dumps(message))


def test_messages_come_whole_and_in_order(wire: Wire) -> None:
    assert wire.receive() == []
    sent(wire, 1, "two", [3])
    assert wire.receive() == [1, "two", [3]]
    whole = pickle.dumps("in pieces")
    data = len(whole).to_bytes(4, "big") + whole
    with open(wire.theirs.fileno(), "wb", buffering=0, closefd=False) as pipe:
        for byte in data[:-1]:
            pipe.write(bytes([byte]))
            assert wire.receive() == []
        pipe.write(data[-1:])
    assert wire.receive() == ["in pieces"]


def test_nobody_is_waited_for(wire: Wire) -> None:
    messages = [LARGE, *range(100)]
    for message in messages:
        wire.send(message)  # nobody reads meanwhile
    assert wire.events & select.POLLOUT
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.extend(read(wire, len(messages))))
    reader.start()
    while wire.events & select.POLLOUT:
        select.select((), (wire,), ())
        wire.flush()
    reader.join()
    assert found == messages


def read(wire: Wire, count: int) -> list[Any]:
    return [pickle.loads(wire.theirs.recv_bytes()) for _ in range(count)]


def test_large_messages_come_too(wire: Wire) -> None:
    writer = threading.Thread(target=sent, args=(wire, LARGE, "small", LARGE))
    writer.start()
    found: list[Any] = []
    while len(found) < 3:
        assert wire.wait(60)
        found += wire.receive()
    writer.join()
    assert found == [LARGE, "small", LARGE]
    assert len(wire._read) == ROOM


def test_the_end_is_seen_behind_what_came_before(wire: Wire) -> None:
    sent(wire, "last")
    wire.theirs.close()
    assert wire.receive() == ["last"]
    with pytest.raises(EOFError):
        wire.receive()
    with pytest.raises(OSError, match="Broken pipe"):
        wire.send("too late")


def test_descriptors_above_1023_are_waited_for(wire: Wire) -> None:
    """A server with many clients has them when it starts an engine anew."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2048), hard))
    try:
        high = fcntl.fcntl(wire.fileno(), fcntl.F_DUPFD_CLOEXEC, 1024)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wire.close()
    wire._socket = socket.socket(fileno=high)
    sent(wire, "here")
    assert wire.wait(60)
    assert wire.receive() == ["here"]
