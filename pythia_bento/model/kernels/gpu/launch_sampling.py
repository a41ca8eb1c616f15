"""Launches of the kernels that choose tokens and give log-probabilities."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu.triton import sampling, scoring

SAMPLE_BLOCK = 1024
LOG_SUM_BLOCK = 4096  # part of the bits of log-probabilities
SCORE_STAGES = 2  # of loads ahead; measured


class SamplingLauncher:
    """Launches on the current stream for one vocabulary and device."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._vocab_size, self._device = config.vocab_size, device
        self._parts = triton.cdiv(config.vocab_size, SAMPLE_BLOCK)

    def choose(
        self,
        logits: Tensor,
        temperatures: Tensor,
        seeds: Tensor,
        positions: Tensor,
        keys: Tensor,
        tokens: Tensor,
        num_tokens: int,
        *,
        is_masked: bool = False,
        ring: Tensor | None = None,
    ) -> None:
        """Pick ``tokens`` (int32 [R]).

        With ``ring`` (int32 [R, a power of two]) ``positions`` are context lengths: they move on,
        ``tokens`` are the next inputs, and the token of position p is also put at p modulo the
        ring's width.
        """
        rows, parts = len(logits), self._parts
        sampling.choose_partial[(rows, parts)](
            logits_ptr=logits,
            temperatures_ptr=temperatures,
            seeds_ptr=seeds,
            positions_ptr=positions,
            key_ptr=keys,
            num_ids=num_tokens,
            VOCAB=self._vocab_size,
            BLOCK=SAMPLE_BLOCK,
            PARTS=parts,
            MASKED=is_masked,
            num_warps=4,
        )
        sampling.choose_final[(rows,)](
            key_ptr=keys,
            tokens_ptr=tokens,
            context_lens_ptr=positions,
            ring_ptr=tokens if ring is None else ring,
            PARTS=parts,
            BLOCK=triton.next_power_of_2(parts),
            RING=1 if ring is None else ring.shape[1],
            ADVANCE=ring is not None,
            num_warps=1,
        )

    def keys(self, rows: int) -> Tensor:
        """Room that ``choose`` needs for so many rows."""
        return torch.empty(rows, self._parts, dtype=torch.int64, device=self._device)

    def score(
        self,
        logits: Tensor,
        targets: Tensor,
        values: Tensor,
        ranks: Tensor,
        norms: Tensor,
        best_ids: Tensor,
        best: Tensor,
    ) -> None:
        """Log-probabilities ``values`` and ``ranks`` of ``targets`` (int32 [R]), all fp32 or int32.

        ``norms`` are the log-normalisers, ``best_ids`` and ``best`` [R, k] the k best tokens.
        """
        is_one = best.shape[1] == 1
        scoring.score[(len(logits),)](
            logits_ptr=logits,
            targets_ptr=targets,
            value_ptr=values,
            rank_ptr=ranks,
            norm_ptr=norms,
            best_id_ptr=best_ids if is_one else ranks,
            best_ptr=best if is_one else values,
            VOCAB=self._vocab_size,
            BLOCK=LOG_SUM_BLOCK,
            BEST=is_one,
            STAGES=SCORE_STAGES,
            num_warps=8,
        )
        if best.shape[1] > 1:
            self._best(logits, norms, best_ids, best)

    def _best(self, logits: Tensor, norms: Tensor, ids: Tensor, values: Tensor) -> None:
        rows, parts = len(logits), self._parts
        keys = self.keys(rows)
        shape = {"VOCAB": self._vocab_size, "BLOCK": SAMPLE_BLOCK, "PARTS": parts, "num_warps": 4}
        scoring.best_of_part[(rows, parts)](logits_ptr=logits, key_ptr=keys, **shape)
        scoring.best[(rows,)](
            logits_ptr=logits,
            key_ptr=keys,
            norm_ptr=norms,
            id_ptr=ids,
            value_ptr=values,
            count=ids.shape[1],
            WIDTH=triton.next_power_of_2(parts),
            **shape,
        )
