"""The weights that captured graphs point to, where those of several checkpoints take turns.

Graphs have addresses. So whoever's turn it is is copied to the place that they know, on the stream
on which they run: behind what was queued for those before, and ahead of all that comes. No kernel
begins before the one ahead of it on its stream has ended (none is launched as a programmatic
dependent), so none reads weights of which a part is another's.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.base import PackedWeights, Slab

logger = logging.getLogger(__name__)


class ActiveWeights:
    """A copy of some weights that have a slab; the model's own where they have none."""

    def __init__(self, model: GPTNeoX) -> None:
        own = model.weights
        if own.slab is not None:
            own = model.kernels.contiguous(own, own.slab.tag)
        self.weights = own
        self.tag = own.slab.tag if own.slab else b""  # of what is there, when all queued is done
        self._strangers: set[bytes] = set()

    @torch.inference_mode()
    def bring(self, weights: PackedWeights) -> bool:
        """Queue the copy unless they are there; False where graphs cannot compute with them."""
        own, slab = self.weights.slab, weights.slab
        if own is None or slab is None:
            return weights is self.weights
        if slab.scalars != own.scalars:
            self._tell(slab)
            return False
        if slab.tag != self.tag:
            own.memory.copy_(slab.memory, non_blocking=True)
            self.tag = slab.tag
        return True

    def proof(self) -> Proof | None:
        """How to prove whose weights have computed something; None where there are no others."""
        slab = self.weights.slab
        return Proof(self, slab.memory[: len(slab.tag)]) if slab else None

    def _tell(self, slab: Slab) -> None:
        if slab.tag not in self._strangers:
            self._strangers.add(slab.tag)
            logger.warning(
                "a checkpoint is computed without graphs, which is slower: its activations are "
                "scaled otherwise than those of the checkpoint that they were captured with (%s)",
                slab.tag.hex()[:12],
            )


class Proof:
    """The tag that the device has, brought to the host beside what its weights have found."""

    def __init__(self, active: ActiveWeights, tag: Tensor) -> None:
        self._active, self._on_device = active, tag
        self._found = torch.zeros(len(tag), dtype=torch.uint8, pin_memory=tag.is_cuda)
        self._wanted = b""

    def copy(self) -> None:
        """Queue the copy, behind the work that is to be proved."""
        self._wanted = self._active.tag
        self._found.copy_(self._on_device, non_blocking=True)

    def check(self) -> None:
        """Once the copy is done; raises RuntimeError where other weights have computed."""
        if (found := self._found.numpy().tobytes()) != self._wanted:
            raise RuntimeError(
                f"weights {found.hex()[:12]} have computed what was asked of "
                f"{self._wanted.hex()[:12]}"
            )
