"""Rows on their way back: bits stay, and wait on the disk for those in front of them."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

from pythia_bento.errors import InvalidRequest
from pythia_bento.sweep.events import Row
from pythia_bento.sweep.ray.spool import Spool
from pythia_bento.sweep.ray.wire import decode, encode


def test_rows_keep_every_bit() -> None:
    draw = random.Random(3)
    values = [struct.unpack("<f", draw.randbytes(4))[0] for _ in range(2000)]
    logprobs = tuple(value for value in values if -1e30 < value < 0)
    assert len(logprobs) > 500
    rows = [
        Row(checkpoint=0, item=0, id="é\n雨", logprob=sum(logprobs), logprobs=logprobs),
        Row(checkpoint=0, item=1, token_ids=(1, 2), ranks=(1, 50_304), is_greedy=False),
        Row(checkpoint=0, item=2, text="a\u2028b", share=1 / 3, extractable=True, matched=0),
    ]
    found = list(decode(encode(rows), 5))
    assert found == [replace(row, checkpoint=5) for row in rows]


def test_an_error_arrives_as_its_sentence() -> None:
    [found] = decode(encode([Row(checkpoint=0, item=4, error=InvalidRequest("too long"))]), 1)
    assert found.item == 4
    assert found.error is not None
    assert found.error.message == "too long"


def test_blocks_are_read_in_order_and_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 3)
    assert not spool.put(0, 2, b"c")
    assert not spool.put(1, 0, b"x")
    assert not spool.put(0, 0, b"a")
    assert not spool.put(0, 0, b"a")  # computed again
    assert spool.put(0, 1, b"b")
    assert list(spool.read(0)) == [b"a", b"b", b"c"]
    spool.drop(0)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"x"]
