"""A GPT-NeoX model on a kernel backend; no arithmetic of its own.

The layers' loop is in ``kernels/by_layer.py``, and in ``kernels/gpu/forward.py`` for the backend
that joins the end of a layer with the beginning of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from pythia_bento.model.batch import ForwardBatch, Logprobs
from pythia_bento.model.kernels.base import Kernels, KVCache, PackedWeights
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.weights import WeightSource


class GPTNeoX:
    """One model on one device."""

    def __init__(
        self,
        source: WeightSource,
        kernels: Kernels,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Pack all weights; ``on_progress(done, total)`` is called after each part."""
        self.config = source.config
        self.kernels = kernels
        total = self.config.num_layers + 2
        report = on_progress or (lambda done, total: None)
        table = kernels.load_embedding(source.embedding())
        report(1, total)
        # The largest parts first, while little memory is taken: their temporaries set the peak.
        head = kernels.load_head(source.head())
        report(2, total)
        layers = []
        for index in range(self.config.num_layers):
            layers.append(kernels.load_layer(source.layer(index)))
            report(index + 3, total)
        self.weights = PackedWeights(table, layers, head)

    def forward(self, batch: ForwardBatch, cache: KVCache) -> Tensor:
        """Hidden states before the final norm, [T, H]; writes K and V into ``cache``."""
        return self.kernels.forward(self.weights, batch, cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, H] -> fp32 [R, V]."""
        return self.kernels.logits(self.weights.head, hidden)

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow], num_tokens: int) -> Tensor:
        """int32 [R]; see ``Kernels.sample``."""
        return self.kernels.sample(logits, rows, num_tokens)

    def logprobs(self, logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.logprobs``."""
        return self.kernels.logprobs(logits, chosen, num_top)
