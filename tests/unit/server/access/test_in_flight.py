"""The count of requests in flight, and what SIGTERM does with it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
import uvicorn

from pythia_bento.errors import EngineUnavailable
from pythia_bento.server.access.control import AccessControl, InFlight
from pythia_bento.server.drain import LAST_SECONDS, Drain


def test_closed_it_waits_for_the_last_and_lets_nobody_in() -> None:
    in_flight, told = InFlight(), []
    in_flight.enter()
    in_flight.enter()
    in_flight.close(lambda: told.append("empty"))
    with pytest.raises(EngineUnavailable, match="shutting down"):
        in_flight.enter()
    in_flight.leave()
    assert not told
    in_flight.leave()
    assert told == ["empty"]


def test_an_empty_one_tells_at_once() -> None:
    told: list[str] = []
    InFlight().close(lambda: told.append("empty"))
    assert told == ["empty"]


def test_access_counts_in_it() -> None:
    access = AccessControl(None)
    access.in_flight.close(lambda: None)
    with pytest.raises(EngineUnavailable), access.enter(None):
        raise AssertionError("it was closed")


@pytest.fixture
def ends() -> Iterator[list[int]]:
    """What a web server's handler of SIGTERM was called with."""
    calls: list[int] = []

    def handler(number: int, _: FrameType | None) -> None:
        calls.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    yield calls
    signal.signal(signal.SIGTERM, before)


async def _until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


async def test_sigterm_waits_for_what_is_open(ends: list[int]) -> None:
    in_flight, begun = InFlight(), []
    closed: list[str] = []
    drain = Drain(in_flight, 0.0)
    drain.install(lambda: begun.append(True), lambda: closed.append(_refusal(in_flight)))
    in_flight.enter()
    os.kill(os.getpid(), signal.SIGTERM)
    await _until(lambda: drain.has_begun)
    assert begun == [True]
    await _until(lambda: closed == ["the server is shutting down"])
    assert not ends
    in_flight.leave()
    await _until(lambda: ends == [signal.SIGTERM])


async def test_at_the_end_the_web_server_does_not_wait_for_lost_connections() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody asks")

    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    Drain(InFlight(), 0.0).install(lambda: None)
    signal.signal(signal.SIGTERM, before)
    assert server.config.timeout_graceful_shutdown == LAST_SECONDS


async def test_another_web_servers_handler_is_told_of(ends: list[int], caplog: Any) -> None:
    Drain(InFlight(), 0.0).install(lambda: None)
    assert "may keep the process at its end" in caplog.text


async def test_a_second_sigterm_does_not_wait(ends: list[int]) -> None:
    in_flight = InFlight()
    drain = Drain(in_flight, 60.0)
    drain.install(lambda: None)
    in_flight.enter()
    os.kill(os.getpid(), signal.SIGTERM)
    await _until(lambda: drain.has_begun)
    os.kill(os.getpid(), signal.SIGTERM)
    await _until(lambda: ends == [signal.SIGTERM])


def _refusal(in_flight: InFlight) -> str:
    with pytest.raises(EngineUnavailable) as caught:
        in_flight.enter()
    return caught.value.message
