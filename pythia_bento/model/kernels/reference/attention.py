"""Rotary embedding and causal attention over a paged cache, one sequence at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.rotary import rotary_tables

BLOCK = 16


class ReferenceKVCache:
    """Keys and values, [layers, blocks * BLOCK, heads, head_dim] each."""

    def __init__(
        self, config: ModelConfig, num_blocks: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.num_blocks = num_blocks
        slots = num_blocks * BLOCK
        shape = (config.num_layers, slots, config.num_heads, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.nbytes = self.keys.nbytes + self.values.nbytes


class Attention:
    """Attention of one model shape; the rotary table is computed once."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._heads, self._head_dim = config.num_heads, config.head_dim
        self._rotary = config.rotary_dims
        cosine, sine = rotary_tables(config)
        self._cosine = cosine.to(device)[:, None]  # [positions, 1, rotary / 2]
        self._sine = sine.to(device)[:, None]

    def __call__(
        self, index: int, qkv: Tensor, cache: ReferenceKVCache, batch: ForwardBatch
    ) -> Tensor:
        """[T, 3 H] -> [T, H]; writes K and V of layer ``index`` to the batch's slots."""
        heads = qkv.view(len(qkv), self._heads, 3, self._head_dim)
        queries = self._rotate(heads[:, :, 0], batch.positions)
        cache.keys[index, batch.slots] = self._rotate(heads[:, :, 1], batch.positions)
        cache.values[index, batch.slots] = heads[:, :, 2]
        starts = batch.query_starts.tolist()
        results = []
        for sequence, length in enumerate(batch.context_lens.tolist()):
            rows = slice(starts[sequence], starts[sequence + 1])
            slots = _slots(batch.block_tables[sequence], length)
            keys, values = cache.keys[index, slots], cache.values[index, slots]
            results.append(self._attend(queries[rows], keys, values, batch.positions[rows]))
        return torch.cat(results).flatten(1)

    def patterns(
        self,
        index: int,
        qkv: Tensor,
        cache: ReferenceKVCache,
        batch: ForwardBatch,
        rows: Tensor,
        keys: int,
    ) -> Tensor:
        """fp32 [R, heads, keys]; see ``LayerKernels.patterns``."""
        heads = qkv.view(len(qkv), self._heads, 3, self._head_dim)
        positions = batch.positions[rows]
        queries = self._rotate(heads[rows, :, 0], positions)
        owners = torch.searchsorted(batch.query_starts, rows.int(), right=True) - 1
        found = torch.zeros(len(rows), self._heads, keys, device=rows.device)
        for place, (owner, position) in enumerate(zip(owners, positions.tolist(), strict=True)):
            slots = _slots(batch.block_tables[owner], position + 1)
            seen, one = cache.keys[index, slots], slice(place, place + 1)
            weights = self._weights(queries[one].float(), seen.float(), positions[one])
            found[place, :, : position + 1] = weights[:, 0]
        return found

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate pairs (i, i + rotary / 2) of the leading dimensions by position: [T, heads, d]."""
        half = self._rotary // 2
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        cosine, sine = self._cosine[positions], self._sine[positions]
        turned = (first * cosine - second * sine, second * cosine + first * sine)
        return torch.cat((*turned, rest), -1)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
        """[n, heads, d] over [context, heads, d]."""
        weights = self._weights(queries, keys, positions)
        return torch.einsum("hnc,chd->nhd", weights, values)

    def _weights(self, queries: Tensor, keys: Tensor, positions: Tensor) -> Tensor:
        """[heads, n, context]: a query sees keys up to its own position."""
        scores = torch.einsum("nhd,chd->hnc", queries, keys) * self._head_dim**-0.5
        context = torch.arange(len(keys), device=keys.device)
        scores = scores.masked_fill(context > positions[:, None], -torch.inf)
        weights: Tensor = scores.softmax(-1)
        return weights


def _slots(table: Tensor, length: int) -> Tensor:
    """Cache slots of a sequence's tokens: int64 [length]."""
    tokens = torch.arange(length, device=table.device)
    return table[tokens // BLOCK].long() * BLOCK + tokens % BLOCK
