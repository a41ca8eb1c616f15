"""Outputs for many streams at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from pythia_bento.engine.outputs import Outputs, SequenceOutput
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.runtime.deliveries import AT_ONCE, Deliveries
from pythia_bento.runtime.streams import AsyncStream
from tests.unit.runtime.toy_runner import ask, toy_runner
from tests.unit.turning import turning


class Watched(AsyncStream):
    """Notes when it gets what."""

    def __init__(self, name: str, seen: list[tuple[int, str, list[int]]], turned: Any) -> None:
        request = Request(name, (1,), SamplingParams())
        super().__init__([request], 10, lambda ids: None)
        self.name = name
        self._note = lambda ids: seen.append((turned(), name, ids))

    def post(self, outputs: Outputs) -> None:
        self._note([id for output in outputs for id in output.token_ids])


def output(name: str, token: int) -> SequenceOutput:
    return SequenceOutput(name, 0, [token], "")


async def test_some_streams_a_turn_and_callers_by_turns() -> None:
    seen: list[tuple[int, str, list[int]]] = []
    loop = asyncio.get_running_loop()
    async with turning() as turned:
        streams = [Watched(f"many{i}", seen, turned) for i in range(50)]
        few = Watched("few", seen, turned)
        deliveries = Deliveries()
        due = [("many", stream, [output(stream.name, 1)]) for stream in streams]
        deliveries.bring(loop, [*due, ("few", few, [output("few", 1)])])
        while len(seen) < 51:
            await asyncio.sleep(0)
    assert "few" in [name for _, name, _ in seen[:2]]
    assert max(Counter(turn for turn, _, _ in seen).values()) <= AT_ONCE


async def test_what_comes_meanwhile_is_joined_in_its_order() -> None:
    seen: list[tuple[int, str, list[int]]] = []
    loop = asyncio.get_running_loop()
    streams = [Watched(f"{i}", seen, lambda: 0) for i in range(3 * AT_ONCE)]
    deliveries = Deliveries()
    for token in range(3):
        deliveries.bring(loop, [("a", s, [output(s.name, token)]) for s in streams])
    while sum(len(ids) for _, _, ids in seen) < 9 * AT_ONCE:
        await asyncio.sleep(0)
    assert sorted((name, ids) for _, name, ids in seen) == sorted(
        (stream.name, [0, 1, 2]) for stream in streams
    )


async def test_hundreds_of_streams_of_a_runner_have_all_of_their_answers() -> None:
    with toy_runner(max_batch_size=64) as runner:
        requests = [ask((i % 90 + 1,), max_tokens=5) for i in range(200)]
        together = await asyncio.gather(*(runner.complete([request]) for request in requests))
        for request, [[answer]] in zip(requests, together, strict=True):
            [[alone]] = await runner.complete([request])
            assert (answer.token_ids, answer.text) == (alone.token_ids, alone.text)
