"""Launches of the kernels that apply what rows ask for besides temperature."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.cuda import get_device_properties

from pythia_bento.model.batch import RowOptions
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu.triton import options as kernels
from pythia_bento.model.kernels.gpu.triton import shared

BLOCK, WARPS, STAGES = 4096, 16, 1  # of a row's logits at a time; measured
MOST_SPLITS = 32  # programs that share a row
LIST = 512  # of its biases and of what it has seen


class Prepared(NamedTuple):
    """What R rows may choose from; see ``kernels.prepare``."""

    z: Tensor  # fp32 [R, V]
    status: Tensor  # int32 [R]
    floor: Tensor  # int32 [R]
    last: Tensor  # int32 [R]
    best: Tensor  # fp32 [R]
    min_p: Tensor  # fp32 [R]
    board: Tensor  # int64 [R, shared.BOARD]


class OptionsLauncher:
    """Launches on the current stream for one vocabulary and device."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._vocab_size, self._device = config.vocab_size, device
        # All programs must run at the same time; in Triton's interpreter one does.
        is_cuda = device.type == "cuda"
        self._processors = get_device_properties(device).multi_processor_count if is_cuda else 1

    def room(self, options: RowOptions) -> Prepared:
        """What ``prepare`` needs for as many rows."""
        rows, device = len(options.active), self._device
        # Of their own, so that they are aligned: kernels are compiled for how pointers are.
        status, floor, last = (
            torch.zeros(rows, dtype=torch.int32, device=device) for _ in range(3)
        )
        return Prepared(
            z=torch.zeros(rows, self._vocab_size, device=device),
            status=status,
            floor=floor,
            last=last,
            best=torch.zeros(rows, device=device),
            min_p=options.min_p,
            board=torch.zeros(rows, shared.BOARD, dtype=torch.int64, device=device),
        )

    def prepare(
        self,
        logits: Tensor,
        options: RowOptions,
        prepared: Prepared,
        positions: Tensor,
        temperatures: Tensor,
        num_tokens: int,
        *,
        inputs: Tensor | None = None,
    ) -> None:
        """For the rows of ``logits``, the first ones of ``options``.

        With ``inputs`` (int32 [R]), the tokens before the chosen ones, ``options.seen`` is by
        position and is kept here.
        """
        splits = min(MOST_SPLITS, max(1, self._processors // len(logits)))
        span = BLOCK * triton.cdiv(self._vocab_size, splits * BLOCK)
        splits = triton.cdiv(self._vocab_size, span)
        kernels.prepare[(len(logits), splits)](
            logits_ptr=logits,
            z_ptr=prepared.z,
            status_ptr=prepared.status,
            floor_ptr=prepared.floor,
            last_ptr=prepared.last,
            best_ptr=prepared.best,
            board_ptr=prepared.board,
            positions_ptr=positions,
            inputs_ptr=positions if inputs is None else inputs,
            temperature_ptr=temperatures,
            active_ptr=options.active,
            top_k_ptr=options.top_k,
            top_p_ptr=options.top_p,
            bias_start_ptr=options.bias_starts,
            bias_id_ptr=options.bias_ids,
            bias_ptr=options.biases,
            early_ptr=options.early,
            penalty_ptr=options.penalties,
            prompt_ptr=options.prompt_lens,
            seen_ptr=options.seen,
            num_seen_ptr=options.num_seen,
            num_ids=num_tokens,
            width=options.seen.shape[2],
            rows=len(options.active),
            num_biases=len(options.bias_ids),
            splits=splits,
            span=span,
            BOARD=shared.BOARD,
            VOCAB=self._vocab_size,
            BLOCK=BLOCK,
            LIST=LIST,
            STAGES=STAGES,
            INSERT=inputs is not None,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )

    def recall(self, told: Tensor, rows: Tensor, lengths: Tensor, options: RowOptions) -> None:
        """Set ``options.seen`` of ``rows`` (int32 [K]) to tokens ``told`` (int32 [K, L])."""
        if not told.numel():
            return
        kernels.recall[(len(told), triton.cdiv(told.shape[1], LIST))](
            told_ptr=told,
            places_ptr=rows,
            lengths_ptr=lengths,
            prompt_ptr=options.prompt_lens,
            seen_ptr=options.seen,
            stride=told.shape[1],
            width=options.seen.shape[2],
            rows=len(options.active),
            LIST=LIST,
            num_warps=4,
        )
