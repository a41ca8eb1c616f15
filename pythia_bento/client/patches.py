"""What a grid of patches told: how much of an answer each place brings back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pythia_bento.client.pictures import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class PatchGrid:
    """A metric of ``corrupted``, with one activation at a time set to that of ``clean``."""

    values: Array  # float64 [layers, positions] or [layers, heads]
    clean: float  # the metric of each prompt as it is
    corrupted: float
    layers: tuple[int, ...]
    positions: tuple[int, ...]  # empty for heads
    heads: tuple[int, ...]  # empty for positions
    tokens: tuple[str, ...]  # of the clean prompt
    site: str
    metric: str
    model: str
    fingerprint: str

    @property
    def recovered(self) -> Array:
        """Shares of the way from ``corrupted``, 0, to ``clean``, 1; not finite if these agree."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(self.values - self.corrupted, self.clean - self.corrupted)

    def plot(self, path: str | Path) -> None:
        """Write a heat map, a .png or .pdf file; needs matplotlib. Equal grids are equal files."""
        save(self.figure, Path(path))

    def figure(self) -> Figure:
        """The heat map, for those who want to change it; needs matplotlib."""
        from matplotlib.figure import Figure

        is_flat = self.clean == self.corrupted
        shown = self.values if is_flat else self.recovered
        figure = Figure(figsize=self._size(), layout="constrained")
        axes = figure.add_subplot()
        most = float(np.nanmax(np.abs(shown), initial=1e-9))
        image = axes.imshow(shown, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
        axes.set_yticks(range(len(self.layers)), labels=[str(layer) for layer in self.layers])
        axes.set_ylabel("layer")
        axes.set_xticks(range(shown.shape[1]), labels=self.columns, rotation=60, ha="right")
        axes.set_xlabel("head" if self.heads else "token of the clean prompt")
        axes.set_title(f"{self.model}: {self.site}", fontsize="medium")
        figure.colorbar(image, label=self.metric if is_flat else f"{self.metric}, recovered")
        return figure

    @property
    def columns(self) -> list[str]:
        """What each column of ``values`` is: a head, or a position and its token."""
        if self.heads:
            return [str(head) for head in self.heads]
        return [f"{position} {self.tokens[position]!r}" for position in self.positions]

    def _size(self) -> tuple[float, float]:
        """Inches."""
        rows, columns = self.values.shape
        return min(3 + 0.4 * columns, 16), min(2.5 + 0.35 * rows, 12)


def grid(body: Mapping[str, Any], asked: Mapping[str, Any]) -> PatchGrid:
    """An answer of ``/v1/patch`` to a body; raises KeyError, TypeError or ValueError."""
    values = np.array(body["values"], dtype=np.float64)
    layers, positions, heads = (
        tuple(body.get(name) or ()) for name in ("layers", "positions", "heads")
    )
    if values.shape != (len(layers), len(heads or positions)):
        raise ValueError(f"values have the shape {values.shape}")
    return PatchGrid(
        values=values,
        clean=float(body["clean"]),
        corrupted=float(body["corrupted"]),
        layers=layers,
        positions=positions,
        heads=heads,
        tokens=tuple(body["tokens"]),
        site=str(asked["site"]),
        metric=_named(asked["metric"]),
        model=str(body["model"]),
        fingerprint=str(body["system_fingerprint"]),
    )


def _named(metric: Mapping[str, Any]) -> str:
    """``logit_diff ' Paris' ' Rome'``."""
    [(name, tokens)] = metric.items()
    return " ".join([name, *map(repr, tokens if isinstance(tokens, list) else [tokens])])
