"""Sweeps over gRPC: messages, and the same events as the sweep's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest

from pythia_bento.client import AsyncClient, SweepItem, grpc_sweep
from pythia_bento.errors import (
    EngineUnavailable,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PythiaError,
    Unauthenticated,
)
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.sweep import Checkpoint, Done, End, Event, Failed, Row, Start
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.grpc.sweep_messages import MAX_ROWS, messages
from pythia_bento.server.sweeping import SweepAnswer
from pythia_bento.sweep.here import Here
from pythia_bento.sweep.run import run
from pythia_bento.sweep.spec import SweepRequest
from tests.unit.client.sweep_events import EVENTS
from tests.unit.runtime.toy_runner import settled
from tests.unit.runtime.toy_shelf import toy_shelf
from tests.unit.server.grpc.conftest import open_stub, serving

MODELS = [f"toy@step{step}" for step in (1, 4, 2)]  # the second is not there
ITEMS = [SweepItem([5, 6, 7], id="a"), SweepItem("the end", " of"), SweepItem([5] * 9999)]


@pytest.fixture
async def shelf() -> AsyncIterator[PythiaRunner]:
    with toy_shelf() as runner:
        yield runner


def read(sent: Sequence[pb.SweepEvent]) -> list[Event]:
    return [event for message in sent for event in grpc_sweep.events(message)]


def test_every_event_comes_as_it_went() -> None:
    assert read(list(messages(EVENTS))) == EVENTS


def test_errors_come_as_they_went() -> None:
    error = ModelNotFound("nowhere", param="model")
    failed, row = read(
        list(messages([Failed(3, "toy", error), Row(checkpoint=3, item=1, error=error)]))
    )
    assert isinstance(failed, Failed) and isinstance(row, Row)
    for found in (failed.error, row.error):
        assert (type(found), str(found), found and found.param) == (
            ModelNotFound,
            "nowhere",
            "model",
        )


def test_rows_of_a_checkpoint_share_messages() -> None:
    rows = [Row(checkpoint=0, item=item) for item in range(MAX_ROWS + 3)]
    sent = list(messages([*rows, Row(checkpoint=1, item=0), Done(1), *rows[:2]]))
    assert [len(message.rows.rows) for message in sent] == [MAX_ROWS, 3, 1, 0, 2]
    assert [message.rows.checkpoint for message in sent] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    "task",
    [
        "score",
        {"type": "score", "tokens": True},
        {"type": "generate", "max_tokens": 4, "ignore_eos": True, "logit_bias": {5: 1.0}},
        {"type": "extract", "prompt_tokens": 1, "tokens": 1, "share": True},
    ],
)
async def test_it_tells_what_the_sweep_tells(shelf: PythiaRunner, task: Any) -> None:
    items = [item if task == "score" else replace(item, continuation=None) for item in ITEMS]
    fields = dict(task) if isinstance(task, dict) else {"type": task}
    if "logit_bias" in fields:
        fields["logit_bias"] = {"5": 1.0}
    asked = [{"prompt": i.prompt, "continuation": i.continuation, "id": i.id} for i in items]
    spec = SweepRequest.model_validate({"models": MODELS, "items": asked, "task": fields})
    expected = [event async for event in run(spec, Here(shelf))]
    async with serving(shelf) as server, AsyncClient(f"grpc://127.0.0.1:{server.port}") as client:
        found = [e async for e in client.sweep(items, models=MODELS, task=task, priority=3)]
    assert [plain(event) for event in sorted(found, key=place)] == [
        plain(event) for event in sorted(expected, key=place)
    ]
    assert isinstance(found[0], Start) and found[-1] == End(2, 1)


def place(event: Event) -> tuple[str, int, int]:
    """Rows of a checkpoint come in any order."""
    checkpoint = getattr(event, "checkpoint", getattr(event, "index", 0))
    return type(event).__name__, checkpoint, getattr(event, "item", 0)


def plain(event: Event) -> dict[str, Any]:
    return {name: v for name, v in event.as_dict().items() if name != "seconds"}


REFUSED: list[tuple[dict[str, Any], type[PythiaError], str]] = [
    ({"items": []}, InvalidRequest, "items must have at least 1 entries"),
    ({"items": [SweepItem([])]}, InvalidRequest, "prompt must be a string"),
    ({"models": None, "model": "pythia-15m"}, ModelNotFound, "nearest"),
    ({"models": None, "model": "pythia-14m", "steps": [5]}, InvalidRequest, "no step 5"),
    ({"task": {"type": "generate", "n": 2}}, InvalidRequest, "task.n must be 1"),
    ({"task": {"type": "extract", "tokens": 0}}, InvalidRequest, "tokens must be greater"),
    ({"task": {"type": "dream"}}, InvalidRequest, "task cannot be sent"),
    ({"priority": 99}, InvalidRequest, "priority must be less than or equal to 20"),
    ({"items": [SweepItem("a", id="b" * 257)]}, InvalidRequest, "id"),
]


@pytest.mark.parametrize(("changed", "kind", "words"), REFUSED)
async def test_what_is_refused_as_a_whole(
    shelf: PythiaRunner, changed: dict[str, Any], kind: type[PythiaError], words: str
) -> None:
    async with serving(shelf) as server, AsyncClient(f"grpc://127.0.0.1:{server.port}") as client:
        with pytest.raises(kind, match=words):
            _ = [e async for e in client.sweep(**{"items": ITEMS, "models": MODELS, **changed})]
        found = [e async for e in client.sweep(["the end"], models=["toy@step1"])]
        assert found[-1] == End(1, 0)


async def test_a_server_that_shuts_down_ends_it(shelf: PythiaRunner) -> None:
    access = AccessControl(None)
    async with (
        serving(shelf, access) as server,
        AsyncClient(f"grpc://127.0.0.1:{server.port}") as client,
    ):
        found: list[Event] = []
        with pytest.raises(EngineUnavailable, match="shutting down"):
            async for event in client.sweep([[5] * 30] * 200, models=["toy@step1", "toy@step2"]):
                found.append(event)
                if isinstance(event, Row) and event.item == 0:
                    access.in_flight.close(lambda: None)
        assert [event.index for event in found if isinstance(event, Checkpoint)] == [0]


async def test_who_leaves_ends_it(shelf: PythiaRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[SweepAnswer] = []  # for no collection of garbage to end it

    def keep(answer: SweepAnswer) -> AsyncIterator[Any]:
        kept.append(answer)
        return batches_of(answer)

    batches_of = SweepAnswer.batches
    monkeypatch.setattr(SweepAnswer, "batches", keep)
    async with serving(shelf) as server, AsyncClient(f"grpc://127.0.0.1:{server.port}") as client:
        events = client.sweep([[5] * 30] * 1000, models=["toy@step1", "toy@step2"])
        async for event in events:
            if isinstance(event, Row):
                break
        await events.aclose()
        await asyncio.wait_for(_nothing_is_asked(), 60)
        await asyncio.to_thread(settled, shelf)


async def _nothing_is_asked() -> None:
    """Until no checkpoint's task is left, not even one that waits for a reader."""
    while any("Part." in repr(task.get_coro()) for task in asyncio.all_tasks()):
        await asyncio.sleep(0.01)


async def test_it_needs_a_key_where_there_are_keys(shelf: PythiaRunner) -> None:
    async with serving(shelf, api_keys="alice a-key-of-16-or-more") as server:
        url = f"grpc://127.0.0.1:{server.port}"
        async with AsyncClient(url) as client:
            with pytest.raises(Unauthenticated):
                _ = [event async for event in client.sweep(["a"])]
        async with AsyncClient(url, api_key="a-key-of-16-or-more") as client:
            found = [event async for event in client.sweep(["a"], models=["toy@step1"])]
            assert found[-1] == End(1, 0)


async def test_a_full_server_refuses_it(shelf: PythiaRunner) -> None:
    def full(caller: str) -> None:
        raise Overloaded("full")

    access = AccessControl(None)
    access.check_room = full
    async with serving(shelf, access) as server, open_stub(server.port) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [message async for message in stub.Sweep(pb.SweepRequest())]
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
