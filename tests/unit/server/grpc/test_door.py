"""Calls that come in: callers by turns, however many one of them sends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from itertools import pairwise

import pytest

from pythia_bento.errors import Overloaded
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.grpc import door as module
from pythia_bento.server.grpc.door import TURNS_BETWEEN, Door
from tests import raw_http2
from tests.unit.server.grpc.conftest import serving
from tests.unit.turning import turning, until

TOKENIZE = "/pythia.v1.Pythia/Tokenize"
MANY = 600
EMPTY = b"\0" * 5  # a message without fields


async def come(door: Door, caller: str, order: list[str]) -> None:
    await door.enter(caller)
    order.append(caller)


async def test_who_comes_alone_waits_for_nothing() -> None:
    door, order = Door(), list[str]()
    for _ in range(3):
        async with turning() as turned:
            await come(door, "a", order)
            assert turned() == 0
        for _ in range(TURNS_BETWEEN + 2):
            await asyncio.sleep(0)


async def test_callers_come_in_by_turns_and_some_turns_apart() -> None:
    door, order, at = Door(), list[str](), list[int]()

    async def one(caller: str) -> None:
        await come(door, caller, order)
        at.append(turned())

    async with turning() as turned:
        await asyncio.gather(*(one(name) for name in ["many"] * 50 + ["few"] * 2))
    assert [place for place, name in enumerate(order) if name == "few"] == [2, 4]
    assert min(after - before for before, after in pairwise(at)) >= TURNS_BETWEEN - 1


async def test_who_was_cancelled_holds_nobody_up() -> None:
    door, order = Door(), list[str]()
    tasks = [asyncio.create_task(come(door, name, order)) for name in "aabb"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a", "b", "b"]


async def test_so_many_of_a_caller_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    door, order = Door(), list[str]()
    names = ["a"] * 6 + ["b"]
    ended = await asyncio.gather(
        *(come(door, name, order) for name in names), return_exceptions=True
    )
    assert sorted(order) == ["a"] * 4 + ["b"]
    refused = [error for error in ended if error is not None]
    assert len(refused) == 2 and all(isinstance(error, Overloaded) for error in refused)
    await asyncio.gather(*(come(door, "a", order) for _ in range(3)))  # there is room again


def send(connection: raw_http2.Connection, calls: int) -> None:
    """Whole calls, and wait until the server's library has them."""
    for stream in range(1, 2 * calls, 2):
        message = raw_http2.frame(raw_http2.DATA, raw_http2.END_STREAM, stream, EMPTY)
        connection.send(raw_http2.call(stream, TOKENIZE) + message)
    connection.send(raw_http2.frame(raw_http2.PING, payload=bytes(8)))
    frames = connection.frames()
    next(f for f in frames if f.kind == raw_http2.PING and f.flags & raw_http2.ACK)


async def test_hundreds_of_calls_are_in_the_way_of_few_connections(
    runner: PythiaRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """The system says which: that all of them here are among those is as likely as 32 ** -8."""
    caplog.set_level(logging.INFO, "bentoml.access")
    async with serving(runner) as server:
        with contextlib.ExitStack() as stack:
            many, *few = [
                stack.enter_context(contextlib.closing(raw_http2.Connection(server.port)))
                for _ in range(9)
            ]
            names = [one.name for one in few]
            # The event loop stands meanwhile: it sees the first of them when all have come.
            send(many, MANY)
            for one in few:
                send(one, 1)
            await until(lambda: len(caplog.records) == MANY + len(few))
    order = [getattr(record, "fields")["client"] for record in caplog.records]  # noqa: B009
    assert {record.message.split("status=")[1][:2] for record in caplog.records} == {"OK"}
    assert min(map(order.index, names)) < MANY // 6
