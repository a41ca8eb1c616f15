"""Tile sizes by shape and number of tokens: they change the speed, never the bits."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """Rows of weights and tokens of a tile; stages of the load pipeline; warps; inputs.

    Kernels with int8 weights ignore ``depth``: their storage decides.
    """

    rows: int
    tokens: int
    stages: int
    warps: int
    depth: int = 64

    def fit(self, rows: int, depth: int) -> Tile:
        """Shrink to powers of two that divide the product's ``rows`` and ``depth``."""
        return self._replace(
            rows=min(self.rows, rows & -rows), depth=min(self.depth, depth & -depth)
        )


class AttentionTile(NamedTuple):
    """Query rows and dimensions of the result of a program of ``prefill_attention``."""

    rows: int
    dims: int
    stages: int
    warps: int


# (most tokens, tile), by rising number of tokens. Measured on an H200, see docs/gpu.md.
IN = (
    (8, Tile(32, 8, 6, 2)),
    (16, Tile(32, 16, 4, 2)),
    (32, Tile(64, 32, 4, 4)),
    (64, Tile(64, 64, 4, 4)),
    (1 << 30, Tile(128, 128, 3, 8)),
)
OUT_PARTIAL = (
    (8, Tile(32, 8, 6, 2)),
    (16, Tile(32, 16, 4, 2)),
    (32, Tile(64, 32, 4, 4)),
    (64, Tile(64, 64, 4, 4)),
    (1 << 30, Tile(64, 64, 3, 4)),
)
HEAD = (
    (16, Tile(64, 16, 4, 4, 128)),
    (32, Tile(64, 32, 4, 4, 128)),
    (64, Tile(64, 64, 4, 4, 128)),
    (1 << 30, Tile(128, 128, 3, 8, 64)),
)
# For ``prefill``: rows are rows of weights, as above.
WIDE_IN = Tile(256, 128, 4, 8, 64)
WIDE_OUT = Tile(128, 128, 4, 8, 64)
# For ``parts.head_parts``, whose rows of weights are a part of the vocabulary.
SCORES = Tile(128, 128, 3, 4, 64)
TARGETS_AT_ONCE = 16
WIDE_FROM = 513  # tokens from which widening the weights first pays

# Of sequences with many rows. All of 256 dimensions would be more than fits into registers.
ATTENTION_MANY = AttentionTile(64, 128, 2, 4)
FIVE_STAGES = 200 << 10  # bytes of shared memory with which five were measured
FEW_ROWS = 16  # of a sequence in a pass: what decodes, and prompts as short


def attention_few(rows: int, head_dim: int) -> AttentionTile:
    """Of sequences with few, ``rows`` of them and heads together."""
    stages = 3 if head_dim > 128 and rows >= 512 else 2
    return AttentionTile(FEW_ROWS, 256, stages, 4)


def choose(table: tuple[tuple[int, Tile], ...], tokens: int) -> Tile:
    """The table's tile for this many tokens."""
    return next(tile for most, tile in table if tokens <= most)


def kv_tile(head_dim: int) -> int:
    """Positions in a tile of the context, and tokens in a cache block: part of the bits."""
    return 32 if head_dim > 128 else 64


def splits(rows: int, max_tiles: int, head_dim: int) -> int:
    """Programs that share the context of one sequence and head, for ``rows`` = both together.

    Tiles of heads of 256 are so long to load that a program for each row is enough from 128 on.
    """
    wanted = 1 if head_dim > 128 and rows >= 128 else max(1, 256 // rows)
    return min(1 << (wanted.bit_length() - 1), max_tiles)


def decode_stages(rows: int, head_dim: int, shared_bytes: int) -> int:
    """Stages of loads ahead of a decode step's program, for ``rows`` as above.

    Where few programs share a multiprocessor, more have to be under way, if ``shared_bytes`` of its
    memory hold them.
    """
    if rows <= 256 and shared_bytes >= FIVE_STAGES:
        return 5
    return 3 if head_dim > 64 and rows >= 512 else 2


def grid(rows: int, tokens: int, tile: Tile) -> tuple[int]:
    """One program for each tile of a product."""
    return (-(-rows // tile.rows) * -(-tokens // tile.tokens),)
