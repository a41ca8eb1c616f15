"""Memory that a connection is lent: it leaves unchanged, or not at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from pythia_bento.server.http.lent import lending, lending_of, offer
from tests.unit.turning import until

SIZE = 2**25  # bytes: more than the system takes at once


class Connection(asyncio.Protocol):
    """One end, as uvicorn drives it; the test reads at the other one."""

    transport: Any  # uvloop's is no asyncio.Transport

    def __init__(self) -> None:
        self.is_made, self.is_lost, self.may_write = (asyncio.Event() for _ in range(3))
        self.may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.is_made.set()

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost.set()
        self.may_write.set()


async def connected() -> tuple[Connection, socket.socket]:
    connection = Connection()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: connection, "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    await asyncio.wait_for(connection.is_made.wait(), 60)
    server.close()
    return connection, client


def read(client: socket.socket) -> bytes:
    """Until the connection ends."""
    found = bytearray()
    try:
        while piece := client.recv(2**20):
            found += piece
    except ConnectionResetError:
        pass
    return bytes(found)


async def is_read_before_it_changes() -> None:
    connection, client = await connected()
    memory, transport = bytearray(b"\1" * SIZE), connection.transport
    limits = transport.get_write_buffer_limits()
    reading = asyncio.create_task(asyncio.to_thread(read, client))
    with lending(transport):
        for start in range(0, SIZE, SIZE // 4):
            transport.write(memoryview(memory)[start : start + SIZE // 4])
            await asyncio.wait_for(connection.may_write.wait(), 60)
    memory[:] = b"\2" * SIZE
    assert transport.get_write_buffer_limits() == limits
    transport.close()
    assert await asyncio.wait_for(reading, 60) == b"\1" * SIZE
    client.close()


async def what_is_not_read_never_comes() -> None:
    connection, client = await connected()
    memory, transport = bytearray(b"\1" * SIZE), connection.transport
    with lending(transport):
        transport.write(memoryview(memory))  # and no wait, as when a reader is given up
    memory[:] = b"\2" * SIZE
    transport.close()  # which alone would send the rest
    await asyncio.wait_for(connection.is_lost.wait(), 60)
    found = await asyncio.to_thread(read, client)
    assert len(found) < SIZE and set(found) <= {1}
    client.close()
    await until(lambda: _is_free(memory))


async def a_connection_that_is_gone_is_left_alone() -> None:
    connection, client = await connected()
    client.close()
    await asyncio.wait_for(connection.is_lost.wait(), 60)
    with lending(connection.transport):
        pass


def _is_free(memory: bytearray) -> bool:
    """Whether nobody has a view of it."""
    try:
        memory.clear()
    except BufferError:
        return False
    return True


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize(
    "case",
    [
        is_read_before_it_changes,
        what_is_not_read_never_comes,
        a_connection_that_is_gone_is_left_alone,
    ],
)
def test_lending(
    run: Callable[[Coroutine[Any, Any, None]], None],
    case: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    run(case())


@pytest.mark.parametrize("has_tls", [False, True])
def test_with_tls_nothing_is_lent(has_tls: bool) -> None:
    class Transport:
        def get_extra_info(self, name: str) -> object:
            assert name == "sslcontext"
            return object() if has_tls else None

    scope: dict[str, Any] = {"type": "http"}
    assert lending_of(scope) is None
    offer(scope, Transport())
    assert (lending_of(scope) is None) == has_tls
