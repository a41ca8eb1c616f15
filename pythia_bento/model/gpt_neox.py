"""A GPT-NeoX model on a kernel backend; no arithmetic of its own.

The layers' loop is in ``kernels/by_layer.py``, and in ``kernels/gpu/forward.py`` for the backend
that joins the end of a layer with the beginning of the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pythia_bento.model.batch import ForwardBatch, Logprobs
from pythia_bento.model.kernels.base import Kernels, KVCache
from pythia_bento.model.pack import Progress, pack
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.taps import Taps
from pythia_bento.model.weights import WeightSource


class GPTNeoX:
    """One model on one device."""

    def __init__(
        self,
        source: WeightSource,
        kernels: Kernels,
        on_progress: Progress | None = None,
    ) -> None:
        """Pack all weights; ``on_progress(done, total)`` is called after each part."""
        self.config = source.config
        self.kernels = kernels
        self.weights = pack(source, kernels, on_progress)

    def forward(self, batch: ForwardBatch, cache: KVCache, taps: Taps | None = None) -> Tensor:
        """Hidden states before the final norm, [T, H]; writes K and V into ``cache``."""
        return self.kernels.forward(self.weights, batch, cache, taps)

    def normalised(self, hidden: Tensor) -> Tensor:
        """[R, H] -> fp32 [R, H] under the final norm: what the head multiplies."""
        return self.kernels.normalised(self.weights.head, hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, H] -> fp32 [R, V]."""
        return self.kernels.logits(self.weights.head, hidden)

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow], num_tokens: int) -> Tensor:
        """int32 [R]; see ``Kernels.sample``."""
        return self.kernels.sample(logits, rows, num_tokens)

    def logprobs(self, logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.logprobs``."""
        return self.kernels.logprobs(logits, chosen, num_top)

    def scores(self, hidden: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.scores``."""
        return self.kernels.scores(self.weights.head, hidden, chosen, num_top)
