"""Inputs of passes of a fixed size."""

from __future__ import annotations

import numpy as np
import pytest

from pythia_bento.engine.executor import Chunk
from pythia_bento.engine.sequence import Sequence
from pythia_bento.executor.input_batch import fill, lay_out, write_tables
from tests.unit.engine.toy import TOKENIZER, request

BLOCK = 4


def chunk(prompt, start, count, blocks, **params):
    made = Sequence(request(prompt=prompt, **params), 0, 1, TOKENIZER, BLOCK)
    made.hold(blocks)
    return Chunk(made, start, count)


def parts(sequences, tokens, width):
    """Full of what an earlier pass left."""
    sizes = {
        "query_starts": sequences + 1,
        "context_lens": sequences,
        "last_rows": sequences,
        "token_ids": tokens,
        "positions": tokens,
        "slots": tokens,
        "tables": sequences * width,
    }
    made = {name: np.full(size, 77, np.int32) for name, size in sizes.items()}
    made["temperatures"] = np.full(sequences, 77, np.float32)
    made["seeds"] = np.full(sequences, 77, np.uint64)
    return made


@pytest.fixture
def chunks():
    return [
        chunk(tuple(range(10, 16)), 5, 1, [9, 2], temperature=0.5, seed=-1),
        chunk(tuple(range(20, 31)), 3, 7, [4, 0, 6], temperature=0.0, seed=3),
    ]


def test_tokens_lie_end_to_end(chunks):
    tables = np.zeros((2, 3), np.int32)
    write_tables((chunk.sequence for chunk in chunks), tables)
    layout = lay_out(chunks, tables, BLOCK)
    assert tables.tolist() == [[9, 2, 0], [4, 0, 6]]
    assert layout.token_ids.tolist() == [15, *range(23, 30)]
    assert layout.positions.tolist() == [5, *range(3, 10)]
    assert layout.slots.tolist() == [2 * 4 + 1, 4 * 4 + 3, 0, 1, 2, 3, 24, 25]
    assert layout.query_starts.tolist() == [0, 1, 8]
    assert layout.context_lens.tolist() == [6, 10]


def test_what_is_left_over_is_padding(chunks):
    made = parts(4, 12, 5)
    fill(made, chunks, BLOCK, 4, 12)
    assert made["slots"].tolist() == [9, 19, 0, 1, 2, 3, 24, 25, -1, -1, -1, -1]
    assert made["token_ids"][8:].tolist() == made["positions"][8:].tolist() == [0] * 4
    assert made["query_starts"].tolist() == [0, 1, 8, 8, 8]
    assert made["context_lens"].tolist() == [6, 10, 0, 0]
    assert made["last_rows"].tolist() == [0, 7, 0, 0]
    assert made["temperatures"].tolist() == [0.5, 0, 0, 0]
    assert made["seeds"].tolist() == [2**64 - 1, 3, 0, 0]
    assert made["tables"].reshape(4, 5)[:2, :3].tolist() == [[9, 2, 77], [4, 0, 6]]


def test_a_smaller_pass_leaves_the_rest_alone(chunks):
    made = parts(8, 32, 5)
    fill(made, chunks, BLOCK, 2, 8)
    assert made["slots"][8:].tolist() == [77] * 24
    assert made["context_lens"][2:].tolist() == [77] * 6
    assert made["query_starts"].tolist()[2:] == [8, *[77] * 6]
