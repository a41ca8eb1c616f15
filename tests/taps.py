"""Taps for tests: they copy all that they see, and change some of it in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.sites import SITES, Place, Site

Change = Callable[[Tensor], object]
"""Changes rows in place."""


class Recorder:
    """``Taps`` of any number of passes, all rows of each."""

    def __init__(
        self, sites: Iterable[Site] = SITES, changes: Mapping[str, Change] | None = None
    ) -> None:
        """``changes``, by the names of places, come after what is copied."""
        self._sites = frozenset(sites)
        self._changes = changes or {}
        self._seen: dict[str, list[Tensor]] = {}
        self._rows = torch.empty(0, dtype=torch.int64)

    def begin(self, batch: ForwardBatch) -> None:
        """Before each pass."""
        self._rows = torch.arange(len(batch.token_ids), device=batch.token_ids.device)

    @property
    def names(self) -> list[str]:
        """Of the places that were shown, in order."""
        return [*self._seen]

    def of(self, name: str) -> Tensor:
        """What was at a place: rows of all passes, end to end; patterns as wide as the widest."""
        parts = self._seen[name]
        widest = max(part.shape[-1] for part in parts)
        return torch.cat([pad(part, (0, widest - part.shape[-1])) for part in parts])

    def wants(self, place: Place) -> bool:
        """See ``Taps``."""
        return place.site in self._sites or place.name in self._changes

    def places(self, num_layers: int) -> list[Place]:
        """See ``Taps``."""
        layers = range(num_layers)
        every = [Place(site, i) for site in SITES for i in (layers if site.is_in_layer else (0,))]
        return [*filter(self.wants, every)]

    def at(self, place: Place, rows: Tensor, exponent: int = 0) -> None:
        """See ``Taps``."""
        assert len(rows) == len(self._rows)
        self._keep(place.name, rows.float() * 2.0**exponent)
        if change := self._changes.get(place.name):
            change(rows)

    def pattern_rows(self, layer: int) -> Tensor:
        """See ``Taps``."""
        return self._rows

    def patterns(self, layer: int, first: int, weights: Tensor) -> None:
        """See ``Taps``."""
        self._keep(f"blocks.{layer}.attn.hook_pattern", weights)

    def _keep(self, name: str, rows: Tensor) -> None:
        self._seen.setdefault(name, []).append(rows.cpu().clone())
