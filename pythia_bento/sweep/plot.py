"""Curves as a file: PNG and PDF by matplotlib, HTML by ``report``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pythia_bento.client.pictures import save
from pythia_bento.errors import InvalidRequest
from pythia_bento.sweep.curves import Chart, Curve, read_chart, usual_metric
from pythia_bento.sweep.report import report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".html", ".png", ".pdf")
MOST_NAMES = 12  # a longer legend covers the curves
NAME_CHARACTERS = 40


def check_output(path: Path) -> None:
    """Raise InvalidRequest for a kind of file that is not made."""
    if path.suffix not in SUFFIXES:
        raise InvalidRequest(
            f"output is {path.name}, but must end in {', '.join(SUFFIXES)}", param="output"
        )


def plot(folder: Path) -> list[Path]:
    """What ``sweep --plot`` leaves beside its tables: a report, and a picture if that can be drawn.

    Raises InvalidRequest where there is nothing to draw, and OSError.
    """
    chart = read_chart(folder, usual_metric(folder))
    paths = [folder / "report.html"]
    if importlib.util.find_spec("matplotlib") is not None:
        paths.append(folder / "curves.png")
    for path in paths:
        write(chart, path)
    return paths


def write(chart: Chart, path: Path) -> None:
    """Write ``path``, whole or not at all.

    Raises:
        PythiaError: A picture is asked for and matplotlib is not installed.
    """
    check_output(path)
    if path.suffix != ".html":
        save(lambda: figure_of(chart), path, ", or --output report.html")
        return
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        partial.write_text(report(chart), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def figure_of(chart: Chart) -> Figure:
    """The picture, for those who want to change it; needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    handles = _lines(axes, chart)
    _scale(axes, chart)
    axes.set_xlabel("training step")
    axes.set_ylabel(chart.label)
    axes.grid(alpha=0.3)
    names = [_name(curve, len(chart.means)) for curve in (*chart.curves, *chart.means)]
    if len(names) > MOST_NAMES:  # the means are what can be told apart
        handles, names = handles[-len(chart.means) :], names[-len(chart.means) :]
    if len(names) <= MOST_NAMES:
        axes.legend(handles, names, fontsize="small")
    return figure


def _lines(axes: Axes, chart: Chart) -> list[Any]:
    models = [mean.model for mean in chart.means]
    lines = []
    for index, curve in enumerate((*chart.curves, *chart.means)):
        colour = models.index(curve.model) if len(models) > 1 else index
        lines += _line(axes, curve, f"C{colour % 10}", is_alone=not chart.curves)
    return lines


def _scale(axes: Axes, chart: Chart) -> None:
    """Logarithmic steps, with 0 as far from 1 as 1 is from 10; numbers as people write them."""
    from matplotlib.ticker import NullFormatter

    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=min(mean.steps[0] for mean in chart.means))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    if chart.is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _line(axes: Axes, curve: Curve, colour: str, is_alone: bool) -> list[Any]:
    is_mean = not curve.name
    style = "--" if is_mean and not is_alone else "-"
    width, opacity = (2.2, 1.0) if is_mean else (1.0, 0.7)
    return axes.plot(
        curve.steps,
        curve.values,
        style,
        color=colour,
        linewidth=width,
        alpha=opacity,
        marker="." if len(curve.steps) <= 40 else "",
    )


def _name(curve: Curve, models: int) -> str:
    """For the legend; matplotlib leaves out names that begin with an underscore."""
    text = " ".join(curve.name.split()) if curve.name else "all items"
    if len(text) > NAME_CHARACTERS:
        text = text[: NAME_CHARACTERS - 1] + "…"
    text = f"{curve.model}: {text}" if models > 1 else text
    return f" {text}" if text.startswith("_") else text
