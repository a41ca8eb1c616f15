"""Clients of ``/v1/activations`` that read slowly, stop, or leave: memory comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from pythia_bento.errors import CaptureOverflow, DeadlineExceeded
from pythia_bento.handlers.inside import activations
from pythia_bento.protocol.inside import ActivationsRequest, CaptureItem
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.arena import Arena
from pythia_bento.runtime.runner import PythiaRunner
from tests.integration.inside import File, Reader, client_of, post, reached, shown

# Some 3 MB: more than two pieces.
BODY: dict[str, Any] = {"prompts": [[5] * 500], "capture": [{"site": "blocks.*.mlp.hook_post"}]}


@pytest.fixture(scope="module")
def runner() -> Iterator[PythiaRunner]:
    with shown(client_timeout=1, capture_gb=0.0041) as runner:
        yield runner


@pytest.fixture
def arena(runner: PythiaRunner) -> Iterator[Arena]:
    assert runner.arena is not None and runner.arena.used == 0
    yield runner.arena
    assert runner.arena.used == 0


@pytest.fixture(scope="module")
def patient() -> Iterator[PythiaRunner]:
    """It gives nobody up."""
    with shown(client_timeout=3600) as runner:
        yield runner


async def test_pieces_are_small_and_together_the_file(runner: PythiaRunner, arena: Arena) -> None:
    reader = Reader(runner, BODY)
    for _ in range(99):
        reader.may_read.release()
    await reader.task
    start, *parts = reader.messages
    sizes = [len(part["body"]) for part in parts]
    assert len(sizes) > 3 and max(sizes) <= 2**20
    data = b"".join(part["body"] for part in parts)
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(data)
    assert File(data)["0:blocks.2.mlp.hook_post"].shape == (500, 512)
    assert [part["more_body"] for part in parts] == [True] * (len(parts) - 1) + [False]
    await reached(lambda: arena.used == 0)


async def test_who_does_not_read_is_given_up(runner: PythiaRunner, arena: Arena) -> None:
    reader = Reader(runner, BODY)
    reader.may_read.release()
    reader.may_read.release()
    await asyncio.wait_for(reader.task, 60)  # by the server: nobody left
    assert len(reader.messages) == 2 and reader.messages[-1]["more_body"]
    await reached(lambda: arena.used == 0)


async def test_who_leaves_in_the_middle_gives_all_back(patient: PythiaRunner) -> None:
    arena = patient.arena
    assert arena is not None
    for read in (0, 1, 2):
        reader = Reader(patient, BODY)
        for _ in range(read):
            reader.may_read.release()
        await reached(lambda reader=reader, read=read: len(reader.messages) == read)
        await reached(lambda: arena.used > 0)
        reader.leaves.set()
        await reached(lambda: arena.used == 0)
        for _ in range(9):
            reader.may_read.release()  # what is said to nobody
        await asyncio.wait_for(reader.task, 60)


async def test_others_wait_for_the_memory_of_who_reads_and_have_it_then(
    runner: PythiaRunner, arena: Arena
) -> None:
    slow = Reader(runner, BODY)
    for _ in range(2):
        slow.may_read.release()
    await reached(lambda: len(slow.messages) == 2)
    async with client_of(runner) as http:
        waiting = asyncio.ensure_future(post(http, **BODY))
        small = await http.post("/generate", json={"prompt": "a", "max_tokens": 2})
        assert small.status_code == 200
        answer = await asyncio.wait_for(waiting, 60)  # when the slow one was given up
        assert answer.status_code == 200 and len(slow.messages) == 2
    await slow.task
    await reached(lambda: arena.used == 0)


async def test_what_is_late_or_fails_gives_all_back(runner: PythiaRunner, arena: Arena) -> None:
    body = parse(ActivationsRequest, BODY)
    with pytest.raises(DeadlineExceeded):
        await activations(runner, body, timeout=0)
    large = {"site": "hook_embed", "op": "set", "vector": [1e5] * 128}
    body = parse(ActivationsRequest, {**BODY, "interventions": [large], "dtype": "float16"})
    body = body.model_copy(update={"capture": (CaptureItem(site="hook_embed"),)})
    with pytest.raises(CaptureOverflow):
        await activations(runner, body)
    await reached(lambda: arena.used == 0)
