"""A picture of a soak: what is held over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

PANELS = (
    ("rss_mb", "memory of all processes, MB"),
    ("handles", "open descriptors"),
    ("blocks", "KV blocks held"),
    ("waiting", "sequences waiting"),
)


def plot(figures: dict[str, Any], path: Path) -> None:
    """Write a PNG."""
    series = figures["series"]
    minutes = [sample["at"] / 60 for sample in series]
    figure, axes = pyplot.subplots(len(PANELS) + 1, 1, figsize=(8, 10), sharex=True)
    for axis, (name, label) in zip(axes, PANELS, strict=False):
        axis.plot(minutes, [sample[name] for sample in series], linewidth=1)
        axis.set_ylabel(label, fontsize=8)
        axis.set_ylim(bottom=0)
    rates = figures["answers_by_time"]
    at = [(i + 0.5) * figures["seconds"] / 6000 for i in range(len(rates))]
    axes[-1].plot(at, rates, linewidth=1)
    axes[-1].set_ylabel("answers a second", fontsize=8)
    axes[-1].set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes")
    axes[0].set_title(figures["command"], fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
