"""How the chunks of a step lie in the inputs of a forward pass, and how these reach a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.executor import Chunk
from pythia_bento.engine.sequence import Sequence

Array = np.ndarray


class Layout(NamedTuple):
    """The chunks' tokens end to end, int32; see ``ForwardBatch``."""

    token_ids: Array  # [T]
    positions: Array  # [T]
    slots: Array  # [T]
    query_starts: Array  # [S + 1]
    context_lens: Array  # [S]


def write_tables(sequences: Iterable[Sequence], tables: Array) -> None:
    """Put each sequence's blocks into its row of ``tables`` [S or more, W]."""
    for row, sequence in zip(tables, sequences, strict=False):
        held = len(sequence.blocks)
        row[:held] = sequence.block_table[:held]


def lay_out(chunks: Seq[Chunk], tables: Array, block_size: int) -> Layout:
    """Where every token goes, given what ``write_tables`` wrote."""
    counts = np.array([chunk.count for chunk in chunks], np.int32)
    first = np.array([chunk.start for chunk in chunks], np.int32)
    starts = np.zeros(len(chunks) + 1, np.int32)
    counts.cumsum(out=starts[1:])
    positions = np.arange(starts[-1], dtype=np.int32)
    positions += (first - starts[:-1]).repeat(counts)
    blocks = positions // block_size
    offsets = positions - blocks * np.int32(block_size)
    # Places in the flat tables: one index is found in half the time of two.
    blocks += (np.arange(len(chunks), dtype=np.int32) * np.int32(tables.shape[1])).repeat(counts)
    slots = tables.reshape(-1).take(blocks)
    slots *= np.int32(block_size)
    slots += offsets
    return Layout(_token_ids(chunks), positions, slots, starts, first + counts)


def fill(
    parts: Mapping[str, Array],
    chunks: Seq[Chunk],
    block_size: int,
    sequences: int,
    tokens: int,
    *,
    has_tokens: bool = True,
) -> None:
    """Write the inputs of a pass of a fixed number of ``sequences`` and ``tokens``.

    ``parts`` has an array for each field of a layout, for ``last_rows``, ``temperatures`` (fp32),
    ``seeds`` (64 bits) and ``tables``. What the chunks leave over is padding: sequences without
    context, and tokens that are written nowhere. Of a pass that chooses no tokens, what choosing
    takes is left as it was.
    """
    tables = parts["tables"].reshape(len(parts["context_lens"]), -1)
    write_tables((chunk.sequence for chunk in chunks), tables)
    layout, count = lay_out(chunks, tables, block_size), len(chunks)
    total = len(layout.token_ids)
    for name in ("token_ids", "positions", "slots"):
        parts[name][:total] = getattr(layout, name)
        parts[name][total:tokens] = -1 if name == "slots" else 0
    parts["query_starts"][: count + 1] = layout.query_starts
    parts["query_starts"][count + 1 : sequences + 1] = total
    _fill_rows(parts, "context_lens", layout.context_lens, sequences)
    if has_tokens:
        rows = [chunk.sequence for chunk in chunks]
        _fill_rows(parts, "last_rows", layout.query_starts[1:] - 1, sequences)
        _fill_rows(parts, "temperatures", [row.params.temperature for row in rows], sequences)
        _fill_rows(parts, "seeds", [row.seed & (1 << 64) - 1 for row in rows], sequences)


def _fill_rows(
    parts: Mapping[str, Array], name: str, values: Seq[float] | Array, sequences: int
) -> None:
    """Values of as many rows as there are, and zeros."""
    part = parts[name][:sequences]
    part[: len(values)] = values
    part[len(values) :] = 0


def _token_ids(chunks: Seq[Chunk]) -> Array:
    return np.concatenate(
        [chunk.sequence.token_ids[chunk.start : chunk.start + chunk.count] for chunk in chunks]
    )


def upload(array: Array, device: torch.device) -> Tensor:
    """On a CPU the same memory; on a GPU it is there for what is queued from now on."""
    host = torch.from_numpy(array)
    if device.type == "cuda":  # from other memory the copy would wait for the device
        host = host.pin_memory()
    return host.to(device, non_blocking=True)
