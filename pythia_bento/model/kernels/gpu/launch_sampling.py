"""Launches of the kernels that choose tokens and give log-probabilities."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu.triton import sampling

SAMPLE_BLOCK = 1024
LOG_SUM_BLOCK = 4096  # part of the bits of log-probabilities


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

    def log_sum_exp(self, logits: Tensor, chosen: Tensor, norms: Tensor, values: Tensor) -> None:
        """``norms`` and the log-probabilities ``values`` of ``chosen``, fp32 [R]."""
        sampling.log_sum_exp[(len(logits),)](
            logits_ptr=logits,
            chosen_ptr=chosen,
            norm_ptr=norms,
            value_ptr=values,
            VOCAB=self._vocab_size,
            BLOCK=LOG_SUM_BLOCK,
            num_warps=8,
        )
