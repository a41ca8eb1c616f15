"""Curves as one HTML file that loads nothing: style, script and data are in it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pythia_bento.sweep.curves import Chart, Curve

STATIC = Path(__file__).parent / "static"


def report(chart: Chart) -> str:
    """The file's text; equal charts give equal texts."""
    environment = Environment(
        loader=FileSystemLoader(STATIC),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((STATIC / f"report.{suffix}").read_text() for suffix in ("css", "js"))
    return environment.get_template("report.html").render(
        chart=chart,
        style=style,
        script=script,
        policy=_policy(style, script),
        data=_data(chart),
        steps=sorted({step for mean in chart.means for step in mean.steps}),
        values=[dict(zip(mean.steps, mean.values, strict=True)) for mean in chart.means],
    )


def _policy(style: str, script: str) -> str:
    """What a browser may do with the page: nothing but this style and this script."""
    return f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(chart: Chart) -> dict[str, Any]:
    """What the script draws; the template writes it so that no text can end the element."""
    return {
        "label": chart.label,
        "log": chart.is_log,
        "curves": [_curve(curve) for curve in (*chart.curves, *chart.means)],
    }


def _curve(curve: Curve) -> dict[str, Any]:
    return {
        "model": curve.model,
        "name": curve.name,
        "mean": not curve.name,
        "steps": curve.steps,
        "values": curve.values,
    }
