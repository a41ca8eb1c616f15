"""Rows are described in host memory as the device reads them, without any device."""

from __future__ import annotations

import numpy as np

from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.rows import SCALARS, pack_rows
from pythia_bento.engine.scheduler import Chunk
from pythia_bento.engine.sequence import Sequence
from tests.tokenizer_parts import small_tokenizer

TOKENIZER = small_tokenizer()
ROWS, WIDTH, DIRT = 8, 5, -7


def chunk(seed: int, temperature: float, blocks: list[int]) -> Chunk:
    params = SamplingParams(max_tokens=8, temperature=temperature, seed=seed)
    sequence = Sequence(Request("r", (5, 6, 7), params), 0, 0, TOKENIZER, 4)
    sequence.hold(blocks)
    sequence.accept(40 + len(blocks))
    return Chunk(sequence, 3, 1)


def test_every_row_is_where_the_device_reads_it() -> None:
    block = np.full(ROWS * (SCALARS + WIDTH), DIRT, dtype=np.int32)
    chunks = [chunk(2**64 - 3, 0.5, [9]), chunk(-1, 0.0, [3, 4]), chunk(2**40, 1.25, [])]
    assert pack_rows(block, ROWS, chunks, 4) == ROWS * SCALARS + 4 * WIDTH
    assert block[:6].view(np.uint64).tolist() == [2**64 - 3, 2**64 - 1, 2**40]
    tokens, lengths, temperatures = block[2 * ROWS : 5 * ROWS].reshape(3, ROWS)
    assert tokens[:3].tolist() == [41, 42, 40]
    assert lengths[:4].tolist() == [4, 4, 4, 0]  # the bucket's last row is not used
    assert temperatures[:3].view(np.float32).tolist() == [0.5, 0.0, 1.25]
    tables = block[5 * ROWS :].reshape(ROWS, WIDTH)
    assert tables[0].tolist() == [9, DIRT, DIRT, DIRT, DIRT]
    assert tables[1].tolist() == [3, 4, DIRT, DIRT, DIRT]
    assert (tables[2:] == DIRT).all()


def test_a_smaller_batch_leaves_no_row_behind() -> None:
    block = np.zeros(ROWS * (SCALARS + WIDTH), dtype=np.int32)
    pack_rows(block, ROWS, [chunk(i, 0.0, [i]) for i in range(4)], 4)
    pack_rows(block, ROWS, [chunk(7, 0.0, [7])], 2)
    assert block[3 * ROWS : 3 * ROWS + 2].tolist() == [4, 0]
