"""The kernel interface: everything the model computes, behind one protocol.

A backend packs weights into whatever form it likes: ``load_*`` return opaque handles. Backends with
``batch_invariant`` set promise that every output row depends on its own inputs alone, bit for bit:
not on the other rows, their number, or how a prompt was cut into chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pythia_bento.model.batch import DecodeRows, ForwardBatch, Logprobs, RowOptions
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.taps import Taps
from pythia_bento.model.weights import HeadWeights, LayerWeights


class KVCache(Protocol):
    """Keys and values of all layers in ``num_blocks`` blocks of ``block_size`` tokens."""

    num_blocks: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Slab:
    """One piece of memory with all tensors of packed weights, alike in models of one shape.

    Copied over another's slab it makes those weights these, but for the ``scalars``, which captured
    passes have as constants.
    """

    memory: Tensor  # uint8, which begins with the tag
    tag: bytes  # whose weights they are
    scalars: tuple[float, ...]  # numbers of the weights that are in no tensor


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """A model as one backend packed it."""

    table: Any  # of the embedding
    layers: Sequence[Any]
    head: Any
    slab: Slab | None = None  # where all tensors are, if they are in one piece


SCORED_ROWS = 512
"""Rows of logits on a GPU of which several alternatives are found at a time."""
SCORED_AT_ONCE = 2048
"""Rows on a GPU that are scored at a time where no logits are written."""


def pass_bytes(config: ModelConfig, sequences: int, tokens: int) -> int:
    """Device memory of the largest pass on a GPU, besides weights and cache.

    One layer's linears as fp16, the activations of ``tokens`` (residual stream and its copies fp32,
    norms, qkv, up and attended fp16) and what their scores take, four times the logits of
    ``sequences``, and those of the rows of which several alternatives are found at a time.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    linears = 2 * hidden * (4 * hidden + 2 * inner)
    activations = tokens * (3 * 4 * hidden + 2 * (6 * hidden + inner))
    scores = min(tokens, SCORED_AT_ONCE) * (6 * hidden + config.vocab_size // 8)
    logits = 4 * (4 * sequences + SCORED_ROWS) * config.vocab_size
    return linears + activations + scores + logits


class Kernels(Protocol):
    """One backend on one device. T tokens, S sequences, R rows, H hidden, V vocabulary rows.

    The residual stream, [T, H], is fp32; only where the arithmetic is llm-int8, it is fp16.
    """

    name: str  # "cpu", "triton" or "reference"
    matmul: str  # "w8a16" or "llm-int8"
    config: ModelConfig
    device: torch.device
    block_size: int  # tokens in a KV block
    batch_invariant: bool
    has_own_threads: bool  # for all cores: torch's would only be in their way
    scored_at_once: int  # rows that ``scores`` takes at a time
    kept_bytes: int  # beside the weights, what passes keep where one checkpoint has the device

    def load_embedding(self, weight: Tensor) -> Any: ...

    def load_layer(self, layer: LayerWeights) -> Any: ...

    def load_head(self, head: HeadWeights) -> Any: ...

    def contiguous(self, weights: PackedWeights, tag: bytes) -> PackedWeights:
        """A copy of ``weights`` in one ``Slab``, of weights that take turns in captured passes.

        Backends that capture none return what they get. ``tag``, 32 bytes, says whose weights they
        are.
        """
        ...

    def kv_bytes_per_block(self) -> int: ...

    def allocate_cache(self, num_blocks: int) -> KVCache: ...

    def forward(
        self, weights: PackedWeights, batch: ForwardBatch, cache: Any, taps: Taps | None = None
    ) -> Tensor:
        """Hidden states before the final norm, [T, H].

        K and V of every layer go to the batch's slots of ``cache``, which this backend allocated.
        """
        ...

    def normalised(self, head: Any, x: Tensor) -> Tensor:
        """Final norm with weight and bias: [R, H] -> fp32 [R, H]."""
        ...

    def logits(self, head: Any, x: Tensor) -> Tensor:
        """Final norm and head: [R, H] -> fp32 [R, V]."""
        ...

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow], num_tokens: int) -> Tensor:
        """Choose one token a row among ids below ``num_tokens``: int32 [R].

        -1 where a row has a non-finite logit. Ties go to the lowest id.
        """
        ...

    def logprobs(self, logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """Log-probability and rank of ``chosen`` (int32 [R]), and each row's ``num_top`` best.

        Never waits for the device, so that prompts are scored a slice of rows after the other.
        """
        ...

    def scores(self, head: Any, x: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """What ``logprobs`` finds in the logits of ``x`` ([R, H])."""
        ...

    def capturable(self) -> Capturable | None:
        """What can be captured in CUDA graphs; None where that is impossible."""
        ...


class DecodeSteps(Protocol):
    """Decode steps of rows that stay where they are; see ``DecodeRows``."""

    logits: Tensor  # fp32 [R, V], of the last step

    def step(self, count: int, *, with_options: bool = False) -> None:
        """A token of each of the first ``count`` rows, which then move on by one.

        Without ``with_options`` they are chosen by temperature alone, and no log-probabilities are
        found.
        """
        ...


Stretch = Callable[[Hashable, Callable[[], None]], None]
"""Queues the launches of a part of a pass; they depend on its key and the sizes of the batch."""


class TappedStretches(Protocol):
    """A pass with taps, cut into stretches where they want something."""

    def __call__(self, stretch: Stretch) -> None:
        """Through all layers: each part goes to ``stretch``, and taps are called in between."""
        ...


class PromptPasses(Protocol):
    """Passes with prompts; all results stay until the next pass."""

    hidden: Tensor  # fp32 [T, H], before the final norm
    logits: Tensor  # fp32 [S, V]
    tokens: Tensor  # int32 [S]; -1 where logits are not finite

    def run(self, batch: ForwardBatch) -> None:
        """A pass up to ``hidden``."""
        ...

    def tapped(self, batch: ForwardBatch, tokens: int, width: int, taps: Taps) -> TappedStretches:
        """The same, to be run in stretches.

        Of the batch the first ``tokens`` are shown; no context has more than ``width`` blocks.
        """
        ...

    def choose(
        self,
        context_lens: Tensor,  # int32 [S]
        last_rows: Tensor,  # int32 [S], the row that each sequence's logits are of
        temperatures: Tensor,  # fp32 [S], 0 is greedy
        seeds: Tensor,  # int64 [S]
    ) -> None:
        """After ``run``: a token of each sequence by temperature alone."""
        ...


class ScoredRows(Protocol):
    """Log-probabilities of rows; what goes in and what comes out stays where it is."""

    asked: Tensor
    """int32 [2 R]: of ``count`` rows their numbers among the hidden states, then their targets."""
    found: Tensor
    """int32 [4 R]: of ``count`` rows bits of the targets' log-probabilities, then their ranks, the
    best tokens and the bits of theirs; see ``Logprobs``."""

    def run(self, count: int) -> None:
        """The first ``count`` rows."""
        ...


class Capturable(Protocol):
    """Makes passes that a CUDA graph can hold: no step of theirs asks the host for anything.

    All memory that a pass keeps is allocated when it is made.
    """

    config: ModelConfig
    device: torch.device
    block_size: int  # tokens in a KV block

    def decode_steps(
        self, weights: PackedWeights, cache: Any, rows: DecodeRows, num_tokens: int
    ) -> DecodeSteps:
        """Steps of as many rows as ``rows`` has; ids below ``num_tokens`` may be chosen."""
        ...

    def recall(self, told: Tensor, rows: Tensor, lengths: Tensor, options: RowOptions) -> None:
        """Set what ``rows`` (int32 [K]) have seen to ``told`` (int32 [K, L]), by position.

        ``lengths`` (int32 [K]) are how many of the tokens count. ``options`` has all else already.
        """
        ...

    def prompt_passes(
        self, weights: PackedWeights, cache: Any, sequences: int, tokens: int, num_tokens: int
    ) -> PromptPasses:
        """Passes of up to ``sequences`` and ``tokens``; ids below ``num_tokens`` may be chosen."""
        ...

    def scored_rows(self, weights: PackedWeights, hidden: Tensor, rows: int) -> ScoredRows:
        """Log-probabilities of up to ``rows`` rows of ``hidden`` (fp32 [T, H])."""
        ...
