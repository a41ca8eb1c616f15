"""Launches of the kernels that choose tokens and give log-probabilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu import tiles
from pythia_bento.model.kernels.gpu.launch_options import Prepared
from pythia_bento.model.kernels.gpu.packing import TritonHead
from pythia_bento.model.kernels.gpu.tiled import has_tma, tiled
from pythia_bento.model.kernels.gpu.triton import parts, sampling, scoring

SAMPLE_BLOCK = 1024
PARTS_AT_ONCE = 32  # of a row of logits that one program reads
ROWS_AT_ONCE = 8  # rows whose parts one program folds: a line of memory


class Scores(NamedTuple):
    """Log-probabilities of R rows with k alternatives each; see ``Logprobs``."""

    values: Tensor  # fp32 [R]
    ranks: Tensor  # int32 [R]
    norms: Tensor  # fp32 [R], the log-normalisers
    best_ids: Tensor  # int32 [R, k]
    best: Tensor  # fp32 [R, k]
    parts: Tensor  # int32, room of ``SamplingLauncher.parts`` for R or more rows
    keys: Tensor | None = None  # room as of ``SamplingLauncher.keys``; None: made where needed

    def first(self, count: int) -> Scores:
        """The first ``count`` rows."""
        values, ranks, norms, best_ids, best = (part[:count] for part in self[:5])
        return Scores(values, ranks, norms, best_ids, best, self.parts, self.keys)


class SamplingLauncher:
    """Launches on the current stream for one vocabulary and device."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._vocab_size, self._device = config.vocab_size, device
        self._parts = triton.cdiv(config.vocab_size, SAMPLE_BLOCK)
        self._parts_of_score = triton.cdiv(config.vocab_size, parts.PART.value)
        self._tma = has_tma(device)

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
        rows, width = len(logits), self._parts
        has_options = prepared is not None
        if prepared is None:  # none of it is read
            prepared = Prepared(logits, tokens, tokens, tokens, temperatures, temperatures, seeds)
        sampling.choose_partial[(rows, width)](
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
            PARTS=width,
            OPTIONS=has_options,
            num_warps=4,
        )
        sampling.choose_final[(rows,)](
            key_ptr=keys,
            tokens_ptr=tokens,
            context_lens_ptr=positions,
            ring_ptr=tokens if ring is None else ring,
            PARTS=width,
            BLOCK=triton.next_power_of_2(width),
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
        best = torch.empty(rows, top, device=self._device)
        return Scores(values, ranks, norms, ids, best, self.parts(rows))

    def parts(self, rows: int) -> Tensor:
        """Room that ``score`` and ``score_head`` need for so many rows."""
        size = parts.PLANES.value * self._parts_of_score * rows
        return torch.empty(size, dtype=torch.int32, device=self._device)

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
        rows = len(logits)
        parts.logit_parts[(rows, triton.cdiv(self._parts_of_score, PARTS_AT_ONCE))](
            logits_ptr=logits,
            targets_ptr=targets,
            value_ptr=found.values,
            part_ptr=found.parts,
            limit_ptr=targets if limits is None else limits,
            num_rows=rows,
            VOCAB=self._vocab_size,
            PARTS=self._parts_of_score,
            AT_ONCE=PARTS_AT_ONCE,
            LIMITED=limits is not None,
            num_warps=8,
        )
        is_one = found.best.shape[1] == 1 and limits is None
        self._fold(targets, found, limits, has_best=is_one)
        if found.best.shape[1] and not is_one:
            self._best(logits, found, limits)

    def score_head(
        self,
        head: TritonHead,
        h: Tensor,
        targets: Tensor,
        found: Scores,
        tile: tiles.Tile | None = None,
    ) -> None:
        """``score`` of the logits of normed hidden states ``h`` (fp16 [R, H]), one best token each.

        The logits are never written.
        """
        rows, hidden = h.shape
        tile = (tile or tiles.SCORES).fit(1 << 20, hidden)
        common: dict[str, Any] = {
            "num_rows": rows,
            "h_scale": head.scale,
            "VOCAB": self._vocab_size,
            "H": hidden,
        }
        common |= {"targets_ptr": targets, "value_ptr": found.values}
        at_once, depth = tiles.TARGETS_AT_ONCE, tile.depth
        parts.target_logits[(triton.cdiv(rows, at_once),)](
            w_ptr=head.weight, h_ptr=h, BK=depth, ROWS=at_once, num_warps=1, **common
        )
        grid = self._parts_of_score * triton.cdiv(rows, tile.tokens)
        parts.head_parts[(grid,)](
            w=tiled(head.weight, parts.PART.value, depth, tma=self._tma),
            h=tiled(h, tile.tokens, depth, tma=self._tma),
            part_ptr=found.parts,
            PARTS=self._parts_of_score,
            BT=tile.tokens,
            BK=depth,
            STAGES=tile.stages,
            TMA=self._tma,
            num_warps=tile.warps,
            **common,
        )
        self._fold(targets, found, None, has_best=True)

    def _fold(
        self, targets: Tensor, found: Scores, limits: Tensor | None, *, has_best: bool
    ) -> None:
        rows = len(found.values)  # there may be more targets
        parts.fold_parts[(triton.cdiv(rows, ROWS_AT_ONCE),)](
            part_ptr=found.parts,
            targets_ptr=targets,
            value_ptr=found.values,
            rank_ptr=found.ranks,
            norm_ptr=found.norms,
            best_id_ptr=found.best_ids if has_best else found.ranks,
            best_ptr=found.best if has_best else found.values,
            limit_ptr=targets if limits is None else limits,
            num_rows=rows,
            VOCAB=self._vocab_size,
            PARTS=self._parts_of_score,
            WIDTH=triton.next_power_of_2(self._parts_of_score),
            ROWS=ROWS_AT_ONCE,
            BEST=has_best,
            LIMITED=limits is not None,
            num_warps=4,
        )

    def _best(self, logits: Tensor, found: Scores, limits: Tensor | None) -> None:
        rows, width = len(logits), self._parts
        keys = self.keys(rows) if found.keys is None else found.keys
        common = {
            "logits_ptr": logits,
            "key_ptr": keys,
            "limit_ptr": found.ranks if limits is None else limits,
            "VOCAB": self._vocab_size,
            "BLOCK": SAMPLE_BLOCK,
            "PARTS": width,
            "LIMITED": limits is not None,
            "num_warps": 4,
        }
        scoring.best_of_part[(rows, width)](**common)
        scoring.best[(rows,)](
            norm_ptr=found.norms,
            id_ptr=found.best_ids,
            value_ptr=found.best,
            count=found.best_ids.shape[1],
            WIDTH=triton.next_power_of_2(width),
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
