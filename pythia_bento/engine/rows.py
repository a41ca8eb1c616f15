"""Rows of a device's batch as integers in host memory, ready to be copied. No device is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pythia_bento.engine.scheduler import Chunk
from pythia_bento.engine.sequence import Sequence as Sequence_

SCALARS = 5  # integers of a row beside its block table


def pack_rows(block: np.ndarray, rows: int, chunks: Sequence[Chunk], bucket: int) -> int:
    """Describe decode rows in ``block``; returns how many of its integers are to be copied.

    The block is int32 [rows * (SCALARS + width)]: seeds of 64 bits, input tokens, context lengths,
    temperatures of fp32, each for all ``rows``, then the block tables. The first ``bucket`` rows
    are used; those without a chunk get an empty context.
    """
    count, sequences = len(chunks), [chunk.sequence for chunk in chunks]
    width = len(block) // rows - SCALARS
    pack_seeds(block[: 2 * rows], sequences)
    tokens, lengths, temperatures = block[2 * rows : SCALARS * rows].reshape(3, rows)
    tokens[:count] = [chunk.sequence.token_ids[chunk.start] for chunk in chunks]
    lengths[:count] = [chunk.start + 1 for chunk in chunks]
    lengths[count:bucket] = 0
    pack_temperatures(temperatures, sequences)
    pack_tables(block[SCALARS * rows :].reshape(rows, width), sequences)
    return SCALARS * rows + bucket * width


def pack_seeds(part: np.ndarray, sequences: Sequence[Sequence_]) -> None:
    """Two integers a row: the seed modulo 2**64."""
    seeds = [sequence.seed & (1 << 64) - 1 for sequence in sequences]
    part.view(np.uint64)[: len(seeds)] = np.array(seeds, dtype=np.uint64)


def pack_temperatures(part: np.ndarray, sequences: Sequence[Sequence_]) -> None:
    """One fp32 a row."""
    part.view(np.float32)[: len(sequences)] = [s.params.temperature for s in sequences]


def pack_tables(tables: np.ndarray, sequences: Sequence[Sequence_]) -> None:
    """The blocks that each sequence holds; entries behind them are left as they are."""
    for row, sequence in zip(tables, sequences, strict=False):
        held = len(sequence.blocks)
        row[:held] = sequence.block_table[:held]
