"""The last limit of a request's time, and that nothing of a request outlives it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import ContextVar
from typing import Any

import pytest
from bentoml._internal.server.http.traffic import TimeoutMiddleware

from pythia_bento.server.bentoml.time_limit import TimeLimit

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/"}
WHO: ContextVar[Any] = ContextVar("who")


class Somebody:
    """What a request is known by."""


async def never() -> Any:
    await asyncio.Event().wait()


class Sent(list[Any]):
    async def __call__(self, message: Any) -> None:
        self.append(message)


async def answers(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a"})


async def waits(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


async def streams(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"a"})


async def ask(layer: Any) -> weakref.ref[Somebody]:
    """One request of somebody, who is only in its context."""
    somebody = Somebody()
    WHO.set(somebody)
    await layer(SCOPE, never, Sent())
    return weakref.ref(somebody)


@pytest.mark.parametrize("kind", [TimeLimit, TimeoutMiddleware])
async def test_nothing_of_a_request_is_kept_by_its_timer(kind: Any) -> None:
    somebody = await asyncio.create_task(ask(kind(answers, timeout=600)))
    await asyncio.sleep(0)
    gc.collect()
    assert (somebody() is None) == (kind is TimeLimit)  # BentoML's own keeps all: see the module


async def test_what_does_not_begin_in_time_is_cancelled() -> None:
    sent = Sent()
    await TimeLimit(waits, timeout=0.01)(SCOPE, never, sent)
    start, body = sent
    assert start["status"] == 504
    assert b"not answered in 0.01 seconds" in body["body"]
    await asyncio.sleep(0)  # the task itself goes on


async def test_what_has_begun_may_take_longer() -> None:
    sent = Sent()
    await TimeLimit(streams, timeout=0.01)(SCOPE, never, sent)
    assert [message.get("body") for message in sent] == [None, b"a"]


async def test_who_cancels_otherwise_cancels() -> None:
    sent = Sent()
    task = asyncio.create_task(TimeLimit(waits, timeout=600)(SCOPE, never, sent))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sent == []


async def test_an_application_s_life_has_no_limit() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, send))

    sent = Sent()
    await TimeLimit(app, timeout=0)({"type": "lifespan"}, never, sent)
    assert seen == [({"type": "lifespan"}, sent)]
