"""Tile sizes by shape and number of tokens: they change the speed, never the bits."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """Rows of weights, tokens and inputs of a tile; stages of the load pipeline; warps."""

    rows: int
    tokens: int
    depth: int
    stages: int
    warps: int

    def fit(self, rows: int, depth: int) -> Tile:
        """Shrink to powers of two that divide the product's ``rows`` and ``depth``."""
        return self._replace(
            rows=min(self.rows, rows & -rows), depth=min(self.depth, depth & -depth)
        )


# (most tokens, tile), by rising number of tokens. Measured on an H200, see docs/gpu.md.
IN = (
    (8, Tile(64, 16, 128, 4, 4)),
    (16, Tile(64, 16, 128, 4, 4)),
    (32, Tile(64, 32, 128, 4, 4)),
    (64, Tile(64, 64, 128, 4, 4)),
    (128, Tile(128, 128, 64, 4, 8)),
    (1 << 30, Tile(128, 256, 64, 3, 8)),
)
OUT_PARTIAL = (
    (8, Tile(64, 16, 128, 4, 4)),
    (16, Tile(64, 16, 128, 4, 4)),
    (32, Tile(64, 32, 128, 4, 4)),
    (64, Tile(64, 64, 128, 4, 4)),
    (128, Tile(64, 128, 64, 4, 4)),
    (1 << 30, Tile(128, 128, 64, 4, 8)),
)
OUT = (
    (64, Tile(64, 64, 128, 4, 4)),
    (1 << 30, Tile(128, 128, 64, 3, 8)),
)
HEAD = (
    (16, Tile(64, 16, 128, 4, 4)),
    (32, Tile(64, 32, 128, 4, 4)),
    (64, Tile(64, 64, 128, 4, 4)),
    (1 << 30, Tile(128, 128, 64, 3, 8)),
)


def choose(table: tuple[tuple[int, Tile], ...], tokens: int, rows: int, depth: int) -> Tile:
    """The table's tile for this many tokens, made to fit."""
    tile = next(tile for most, tile in table if tokens <= most)
    return tile.fit(rows, depth)


def kv_tile(head_dim: int) -> int:
    """Positions in a tile of the context, and tokens in a cache block: part of the bits."""
    return 32 if head_dim > 128 else 64


def splits(rows: int, max_tiles: int) -> int:
    """Programs that share the context of one sequence and head, for ``rows`` = both together."""
    wanted = max(1, 256 // rows)
    return min(1 << (wanted.bit_length() - 1), max_tiles)
