"""The kernel interface: everything the model computes, behind one protocol.

A backend packs weights into whatever form it likes (``load_*`` return opaque handles) and may keep
``qkv`` and ``up`` in any layout between its own calls. Backends with ``batch_invariant`` set
promise that every output row depends on its own inputs alone, bit for bit: not on the other rows,
their number, or how a prompt was cut into chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from pythia_bento.model.batch import ForwardBatch, Logprobs
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.weights import HeadWeights, LayerWeights


class KVCache(Protocol):
    """Keys and values of all layers in ``num_blocks`` blocks of ``block_size`` tokens."""

    num_blocks: int
    nbytes: int


def pass_bytes(config: ModelConfig, sequences: int, tokens: int) -> int:
    """Device memory of the largest pass on a GPU, besides weights and cache.

    One layer's linears as fp16, the activations of ``tokens`` (residual stream and its copies fp32,
    norms, qkv, up and attended fp16), and three times the logits of ``sequences``.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    linears = 2 * hidden * (4 * hidden + 2 * inner)
    activations = tokens * (3 * 4 * hidden + 2 * (6 * hidden + inner))
    return linears + activations + 3 * 4 * sequences * config.vocab_size


class Kernels(Protocol):
    """One backend on one device. T tokens, S sequences, R rows, H hidden, V vocabulary rows.

    The residual stream, [T, H], is fp32; only where the arithmetic is llm-int8, it is fp16.
    """

    name: str  # "cpu", "triton" or "reference"
    matmul: str  # "w8a16" or "llm-int8"
    device: torch.device
    block_size: int  # tokens in a KV block
    batch_invariant: bool

    def load_embedding(self, weight: Tensor) -> Any: ...

    def load_layer(self, layer: LayerWeights) -> Any: ...

    def load_head(self, head: HeadWeights) -> Any: ...

    def kv_bytes_per_block(self) -> int: ...

    def allocate_cache(self, num_blocks: int) -> KVCache: ...

    def embed(self, table: Any, token_ids: Tensor) -> Tensor:
        """int32 [T] -> [T, H]."""
        ...

    def project_in(self, layer: Any, x: Tensor) -> tuple[Any, Any]:
        """[T, H] -> qkv(ln1(x)) and gelu(up(ln2(x))), both opaque to the caller."""
        ...

    def attend(self, index: int, qkv: Any, cache: Any, batch: ForwardBatch) -> Any:
        """Rotate q and k, write k and v of layer ``index`` to their slots, attend causally.

        ``cache`` is what this backend's ``allocate_cache`` returned.
        """
        ...

    def project_out(self, layer: Any, x: Tensor, attended: Any, up: Any) -> Tensor:
        """x + dense(attended) + down(up); may write into ``x``. Returns [T, H]."""
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
        """Log-probability of ``chosen`` (int32 [R]) and the ``num_top`` best tokens of each row."""
        ...


class KernelFactory(Protocol):
    """Backends are built for one model shape."""

    def __call__(self, config: ModelConfig, device: torch.device) -> Kernels: ...
