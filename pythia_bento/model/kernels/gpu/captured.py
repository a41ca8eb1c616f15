"""Passes that CUDA graphs can hold: ``Capturable`` for the GPU's kernels."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pythia_bento.model.batch import MOST_TOP, DecodeRows, ForwardBatch
from pythia_bento.model.kernels.base import SCORED_AT_ONCE, PackedWeights
from pythia_bento.model.kernels.gpu.forward import DecodeAttention, Forward, PromptAttention
from pythia_bento.model.kernels.gpu.inside import TappedPass
from pythia_bento.model.kernels.gpu.launch import Launcher
from pythia_bento.model.kernels.gpu.launch_options import Prepared
from pythia_bento.model.kernels.gpu.launch_sampling import Scores
from pythia_bento.model.kernels.gpu.tiles import splits
from pythia_bento.model.kernels.gpu.workspace import AttentionScratch, TritonKVCache, Workspace
from pythia_bento.model.kernels.tapped import Shown
from pythia_bento.model.taps import Taps

if TYPE_CHECKING:
    from pythia_bento.model.kernels.gpu.decode_step import DecodeStep

logger = logging.getLogger(__name__)


class TritonDecodeSteps:
    """See ``DecodeSteps``: one persistent kernel for few rows, else four kernels a layer."""

    def __init__(
        self,
        launch: Launcher,
        forward: Forward,
        weights: PackedWeights,
        cache: TritonKVCache,
        rows: DecodeRows,
        num_tokens: int,
    ) -> None:
        self._launch, self._forward, self._weights = launch, forward, weights
        self._rows, self._num_tokens = rows, num_tokens
        config, device, count = launch.config, launch.device, len(rows.token_ids)
        self.workspace = Workspace(config, count, device)
        self.workspace.fill(0)
        self.logits = torch.zeros(count, config.vocab_size, device=device)
        self._keys = launch.sampling.keys(count)
        self._prepared = launch.options.room(rows.options)
        self._scores = launch.sampling.scores(count, MOST_TOP)._replace(keys=self._keys)
        # Most rows at which several programs share a context.
        heads, head_dim = config.num_heads, config.head_dim
        shared = max(
            (b for b in range(1, count + 1) if splits(b * heads, 1 << 20, head_dim) > 1), default=1
        )
        scratch = AttentionScratch(config, shared, device)
        self.attend = DecodeAttention(launch, cache, rows, scratch)
        self.persistent = _persistent(launch, weights, cache, count)

    def step(self, count: int, *, with_options: bool = False) -> None:
        """See ``DecodeSteps.step``."""
        if self.persistent and count in self.persistent.batches:
            self.launch_whole(self.persistent, count)
        else:
            self.launch_by_layer(count)
        self.launch_head(count)
        if not with_options:
            self.launch_choice(count)
            return
        self.launch_options(count)
        self.launch_choice(count, self._prepared)
        self.launch_scores(count)

    def launch_whole(self, step: DecodeStep, count: int) -> None:
        """All layers in one kernel."""
        step.launch(self._rows, self.workspace.first(count))

    def launch_by_layer(self, count: int) -> None:
        """Four kernels a layer, and the same bits."""
        a, norms = self.workspace.first(count), self._weights.head.norms
        self._forward(self._weights, self._rows.token_ids, a, self.attend, norms)

    def launch_head(self, count: int) -> None:
        """``logits`` of the rows, which are normed already."""
        h = self.workspace.first(count).h[:1]
        self._launch.head_product(self._weights.head, h, self.logits[:count])

    def launch_options(self, count: int) -> None:
        """What the rows' options leave of their logits."""
        rows = self._rows
        self._launch.options.prepare(
            self.logits[:count],
            rows.options,
            self._prepared,
            rows.context_lens,
            rows.temperatures,
            self._num_tokens,
            inputs=rows.token_ids,
        )

    def launch_choice(self, count: int, prepared: Prepared | None = None) -> None:
        """Each row's next token, which becomes its next input."""
        rows = self._rows
        self._launch.sampling.choose(
            self.logits[:count],
            rows.temperatures,
            rows.seeds,
            rows.context_lens,
            self._keys,
            rows.token_ids,
            self._num_tokens,
            prepared=prepared,
            ring=rows.ring,
        )

    def launch_scores(self, count: int) -> None:
        """The chosen tokens' log-probabilities, of rows that ask for them."""
        rows, found, launch = self._rows, self._scores.first(count), self._launch.sampling
        launch.score(self.logits[:count], rows.token_ids, found, limits=rows.limits)
        launch.record(found, rows.limits, rows.context_lens[:count], rows.found)


class TritonPromptPasses:
    """See ``PromptPasses``."""

    def __init__(
        self,
        launch: Launcher,
        forward: Forward,
        weights: PackedWeights,
        cache: TritonKVCache,
        sequences: int,
        tokens: int,
        num_tokens: int,
    ) -> None:
        self._launch, self._forward, self._weights = launch, forward, weights
        self._cache, self._num_tokens = cache, num_tokens
        config, device = launch.config, launch.device
        # The head's input has a row for each sequence, of which there may be more than tokens.
        self._workspace = Workspace(config, max(sequences, tokens), device)
        self._workspace.fill(0)
        self.hidden = self._workspace.first(tokens).x
        self.logits = torch.zeros(sequences, config.vocab_size, device=device)
        self.tokens = torch.zeros(sequences, dtype=torch.int32, device=device)
        self._keys = launch.sampling.keys(sequences)

    def run(self, batch: ForwardBatch) -> None:
        """See ``PromptPasses.run``."""
        head, attend = self._weights.head, PromptAttention(self._launch, self._cache, batch)
        a = self._workspace.first(len(batch.token_ids))
        self._forward(self._weights, batch.token_ids, a, attend, last_norms=head.norms[:0])

    def tapped(self, batch: ForwardBatch, tokens: int, width: int, taps: Taps) -> TappedPass:
        """See ``PromptPasses.tapped``."""
        a, shown = self._workspace.first(len(batch.token_ids)), Shown(taps, self._launch.config)
        parts = self._launch, self._forward, self._weights, batch, self._cache, shown
        return TappedPass(*parts, a, tokens, width)

    def choose(
        self, context_lens: Tensor, last_rows: Tensor, temperatures: Tensor, seeds: Tensor
    ) -> None:
        """See ``PromptPasses.choose``."""
        launch, head, count = self._launch, self._weights.head, len(last_rows)
        logits, h = self.logits[:count], self._workspace.first(count).h
        launch.norm(head.norms, self.hidden.index_select(0, last_rows), h)
        launch.head_product(head, h[:1], logits)
        launch.sampling.choose(
            logits,
            temperatures,
            seeds,
            context_lens,
            self._keys,
            self.tokens[:count],
            self._num_tokens,
        )


class TritonScoredRows:
    """See ``ScoredRows``."""

    def __init__(self, launch: Launcher, weights: PackedWeights, hidden: Tensor, rows: int) -> None:
        self._launch, self._head, self._hidden = launch, weights.head, hidden
        config, device, few = launch.config, launch.device, min(rows, SCORED_AT_ONCE)
        self.asked = torch.zeros(2 * rows, dtype=torch.int32, device=device)
        self.found = torch.zeros(4 * rows, dtype=torch.int32, device=device)
        self._x = torch.zeros(few, config.hidden_size, device=device)
        self._h = torch.zeros(few, config.hidden_size, dtype=torch.float16, device=device)
        self._norms = torch.zeros(few, device=device)
        self._parts = launch.sampling.parts(few)

    def run(self, count: int) -> None:
        """See ``ScoredRows``. Slice by slice, so that what lies between takes little memory."""
        rows, targets = self.asked[: 2 * count].view(2, count)
        found = self.found[: 4 * count].view(4, count)
        for first in range(0, count, SCORED_AT_ONCE):
            part = slice(first, first + SCORED_AT_ONCE)
            self._run(rows[part], targets[part], *found[:, part])

    def _run(
        self,
        rows: Tensor,
        targets: Tensor,
        values: Tensor,
        ranks: Tensor,
        best_ids: Tensor,
        best: Tensor,
    ) -> None:
        """Of one slice; all int32 [R]."""
        count, launch = len(rows), self._launch
        x, h = self._x[:count], self._h[:count]
        columns = best_ids[:, None], best.view(torch.float32)[:, None]
        found = Scores(
            values.view(torch.float32), ranks, self._norms[:count], *columns, self._parts
        )
        torch.index_select(self._hidden, 0, rows, out=x)
        launch.norm(self._head.norms, x, h[None])
        launch.sampling.score_head(self._head, h, targets, found)


def _persistent(
    launch: Launcher, weights: PackedWeights, cache: TritonKVCache, max_batch: int
) -> DecodeStep | None:
    """None where the device or its software cannot have it: the same bits take longer then."""
    if torch.cuda.get_device_capability(launch.device) < (9, 0):
        return None
    try:
        from pythia_bento.model.kernels.gpu.decode_step import DecodeStep

        return DecodeStep(launch, weights, cache, max_batch)
    except (ImportError, RuntimeError) as error:
        logger.warning("decoding without the persistent kernel: %s", error)
        return None
