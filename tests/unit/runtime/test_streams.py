"""What a stream passes on of each step."""

from __future__ import annotations

import asyncio

from pythia_bento.engine.outputs import TokenLogprob
from pythia_bento.engine.params import Request
from pythia_bento.runtime.streams import AsyncStream
from tests.unit.engine.test_outputs import delta


def stream_of(n: int) -> AsyncStream:
    return AsyncStream([Request("a", (1,), n=n)], 60, lambda ids: None)


async def test_one_that_is_read_as_it_comes_has_every_step() -> None:
    stream = stream_of(1)
    steps = [[delta("a", 0, 97)], [delta("a", 0, 98, finish_reason="stop")]]
    assert [stream.due(step) for step in steps] == steps


async def test_for_one_that_is_read_whole_each_sequence_is_joined_to_its_end() -> None:
    stream = stream_of(2)
    early = delta("a", 0, 97, logprobs=[TokenLogprob(97, -1.0)])
    stream.post(stream.due([early]))
    reading = asyncio.ensure_future(stream.all())
    await asyncio.sleep(0)
    first = delta("a", 0, 98, logprobs=[TokenLogprob(98, -2.0)])
    assert stream.due([first, delta("a", 1, 120)]) == []
    assert stream.due([delta("a", 0, 99, logprobs=[TokenLogprob(99, -3.0)])]) == []
    [other] = stream.due([delta("a", 1, 121, finish_reason="length")])
    assert (other.index, other.token_ids, other.text) == (1, [120, 121], "xy")
    end = delta("a", 0, 100, logprobs=[TokenLogprob(100, -4.0)], finish_reason="stop")
    [joined] = due = stream.due([end])
    assert (joined.token_ids, joined.text, joined.finish_reason) == ([98, 99, 100], "bcd", "stop")
    assert [token.logprob for token in joined.logprobs or ()] == [-2.0, -3.0, -4.0]
    assert (first.token_ids, len(first.logprobs or ())) == (
        [98],
        1,
    )  # who made it may still read it
    stream.post([other])
    stream.post(due)
    assert await reading == [early, other, joined]
