"""LLM.int8 as transformers and bitsandbytes compute it: the same operations in the same order.

``AutoModelForCausalLM.from_pretrained`` loads an 8-bit directory in the dtype that its config
names, which is fp16, and takes torch's scaled dot product attention. Everything between the int8
products is then fp16, rounded after every operation. That cannot be left out: a rounding that
moves an activation to the next of 127 steps, or past the threshold, moves whole rows.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.reference.attention import Attention
from pythia_bento.model.kernels.reference.kernels import ReferenceKernels
from pythia_bento.model.kernels.reference.linear import Linear, LLMInt8
from pythia_bento.model.rotary import rotary_angles
from pythia_bento.model.weights import HeadWeights


class HalfAttention(Attention):
    """Rotates by fp16 sines, and attends with torch's fused attention."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        super().__init__(config, device)
        angles = rotary_angles(config).to(device)  # transformers takes the sines on the device
        self._cosine, self._sine = angles.cos().half()[:, None], angles.sin().half()[:, None]

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
        """Without a mask where torch has a word for it, as that may decide the kernel on a GPU."""
        count, context = len(queries), len(keys)
        query, key, value = (x.transpose(0, 1)[None].contiguous() for x in (queries, keys, values))
        mask = torch.arange(context, device=keys.device) <= positions[:, None]
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask[None, None] if 1 < count < context else None,
            is_causal=1 < count == context,
            scale=self._head_dim**-0.5,
        )
        return attended[0].transpose(0, 1)


class LLMInt8Kernels(ReferenceKernels):
    """What a user of transformers gets from the same directory, on the same device.

    A sequence in one pass has the bits of transformers' batch of one. A residual stream that
    leaves the range of fp16, as reported of pythia-70m, gives non-finite logits, as there.
    """

    matmul = "llm-int8"
    dtype = torch.float16
    linear: ClassVar[type[Linear]] = LLMInt8
    attention: ClassVar[type[Attention]] = HalfAttention

    def join(self, x: Tensor, attn_out: Tensor, mlp_out: Tensor) -> Tensor:
        """See ``LayerKernels.join``; the order of the sum is transformers'."""
        return mlp_out + attn_out + x

    def logits(self, head: HeadWeights, x: Tensor) -> Tensor:
        """See ``Kernels.logits``; rounded to fp16."""
        return F.linear(self._normalise(head.norm, x), head.weight).float()
