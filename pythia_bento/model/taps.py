"""How a forward pass shows its inside, and lets it be changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from pythia_bento.model.sites import Place


class Taps(Protocol):
    """What somebody wants of one pass. T rows are its tokens, in the order of its batch.

    A pass with taps has the bits of one without, but for what ``at`` changes. In each layer places
    come in the order in which they are computed: residual stream, q, k, v, the MLP's activations,
    patterns, z, both outputs, residual stream.
    """

    def wants(self, place: Place) -> bool:
        """Whether ``at`` or ``patterns`` is to be called for a place."""
        ...

    def places(self, num_layers: int) -> Iterable[Place]:
        """All for which ``wants`` says so, of a model of so many layers."""
        ...

    def at(self, place: Place, rows: Tensor, exponent: int = 0) -> None:
        """Read rows, and perhaps change some of them where they are.

        ``rows`` are [T, H], [T, heads, head_dim] or [T, intermediate], any strides, of the
        backend's dtype; their values are ``rows * 2**exponent``. They are the pass's own memory,
        which it uses again: what is kept must be copied before this returns.
        """
        ...

    def pattern_rows(self, layer: int) -> Tensor:
        """Of which rows the attention weights are wanted: int64 [R], rising, on the device."""
        ...

    def patterns(self, layer: int, first: int, weights: Tensor) -> None:
        """Attention weights of some of these rows: fp32 [r, heads, K], those from ``first`` on.

        0 beyond each row's own position. All rows come in order, a few MiB at a time.
        """
        ...
