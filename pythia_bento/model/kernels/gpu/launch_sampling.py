"""Launches of the kernels that choose tokens and give log-probabilities."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu.launch_options import Prepared
from pythia_bento.model.kernels.gpu.triton import sampling, scoring

SAMPLE_BLOCK = 1024
LOG_SUM_BLOCK = 4096  # part of the bits of log-probabilities
SCORE_STAGES = 2  # of loads ahead; measured


class Scores(NamedTuple):
    """Log-probabilities of R rows with k alternatives each; see ``Logprobs``."""

    values: Tensor  # fp32 [R]
    ranks: Tensor  # int32 [R]
    norms: Tensor  # fp32 [R], the log-normalisers
    best_ids: Tensor  # int32 [R, k]
    best: Tensor  # fp32 [R, k]
    keys: Tensor | None = None  # room as of ``SamplingLauncher.keys``; None: made where needed

    def first(self, count: int) -> Scores:
        """The first ``count`` rows."""
        values, ranks, norms, best_ids, best = (part[:count] for part in self[:5])
        return Scores(values, ranks, norms, best_ids, best, self.keys)


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
        prepared: Prepared | None = None,
        ring: Tensor | None = None,
    ) -> None:
        """Pick ``tokens`` (int32 [R]).

        With ``prepared``, rows with options take what ``OptionsLauncher.prepare`` made of their
        logits. With ``ring`` (int32 [R, a power of two]) ``positions`` are context lengths: they
        move on, ``tokens`` are the next inputs, and the token of position p is also put at p modulo
        the ring's width.
        """
        rows, parts = len(logits), self._parts
        has_options = prepared is not None
        if prepared is None:  # none of it is read
            prepared = Prepared(logits, tokens, tokens, tokens, temperatures, temperatures, seeds)
        sampling.choose_partial[(rows, parts)](
            logits_ptr=logits,
            temperatures_ptr=temperatures,
            seeds_ptr=seeds,
            positions_ptr=positions,
            key_ptr=keys,
            z_ptr=prepared.z,
            status_ptr=prepared.status,
            floor_ptr=prepared.floor,
            last_ptr=prepared.last,
            best_ptr=prepared.best,
            min_p_ptr=prepared.min_p,
            num_ids=num_tokens,
            VOCAB=self._vocab_size,
            BLOCK=SAMPLE_BLOCK,
            PARTS=parts,
            OPTIONS=has_options,
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

    def scores(self, rows: int, top: int) -> Scores:
        """Room for the results of ``score``."""
        # Of their own, so that they are aligned: kernels are compiled for how pointers are.
        values, norms = (torch.empty(rows, device=self._device) for _ in range(2))
        ranks = torch.empty(rows, dtype=torch.int32, device=self._device)
        ids = torch.empty(rows, top, dtype=torch.int32, device=self._device)
        return Scores(values, ranks, norms, ids, torch.empty(rows, top, device=self._device))

    def keys(self, rows: int) -> Tensor:
        """Room that ``choose`` needs for so many rows."""
        return torch.empty(rows, self._parts, dtype=torch.int64, device=self._device)

    def score(
        self,
        logits: Tensor,
        targets: Tensor,
        found: Scores,
        *,
        limits: Tensor | None = None,
    ) -> None:
        """Log-probabilities and ranks of ``targets`` (int32 [R]), and as many of the best tokens.

        With ``limits`` (int32 [R]) a row gets at most so many of those, and below 0 nothing.
        """
        is_one = found.best.shape[1] == 1 and limits is None
        scoring.score[(len(logits),)](
            logits_ptr=logits,
            targets_ptr=targets,
            value_ptr=found.values,
            rank_ptr=found.ranks,
            norm_ptr=found.norms,
            best_id_ptr=found.best_ids if is_one else found.ranks,
            best_ptr=found.best if is_one else found.values,
            limit_ptr=targets if limits is None else limits,
            VOCAB=self._vocab_size,
            BLOCK=LOG_SUM_BLOCK,
            BEST=is_one,
            STAGES=SCORE_STAGES,
            LIMITED=limits is not None,
            num_warps=8,
        )
        if found.best.shape[1] and not is_one:
            self._best(logits, found, limits)

    def _best(self, logits: Tensor, found: Scores, limits: Tensor | None) -> None:
        rows, parts = len(logits), self._parts
        keys = self.keys(rows) if found.keys is None else found.keys
        common = {
            "logits_ptr": logits,
            "key_ptr": keys,
            "limit_ptr": found.ranks if limits is None else limits,
            "VOCAB": self._vocab_size,
            "BLOCK": SAMPLE_BLOCK,
            "PARTS": parts,
            "LIMITED": limits is not None,
            "num_warps": 4,
        }
        scoring.best_of_part[(rows, parts)](**common)
        scoring.best[(rows,)](
            norm_ptr=found.norms,
            id_ptr=found.best_ids,
            value_ptr=found.best,
            count=found.best_ids.shape[1],
            WIDTH=triton.next_power_of_2(parts),
            **common,
        )

    def record(self, found: Scores, limits: Tensor, lengths: Tensor, ring: Tensor) -> None:
        """Put log-probabilities of the last tokens of contexts of ``lengths`` into ``ring``.

        ``ring`` is int32 [1 + 2 k, R or more, a power of two]; see ``scoring.record``.
        """
        top = found.best.shape[1]
        scoring.record[(len(lengths),)](
            value_ptr=found.values,
            id_ptr=found.best_ids,
            top_ptr=found.best,
            limit_ptr=limits,
            lengths_ptr=lengths,
            ring_ptr=ring,
            TOP=top,
            WIDTH=triton.next_power_of_2(top),
            ROWS=ring.shape[1],
            RING=ring.shape[2],
            num_warps=1,
        )
