"""``pythia-bento plot``: curves over the training steps from a sweep's tables."""

from __future__ import annotations

from pathlib import Path

import click

METRICS = ("logprob", "loss", "rank", "extractable")


@click.command(short_help="Draw what a sweep found over the training steps.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help="What is drawn.  [default: extractable for --task extract, else loss]",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .html, .png or .pdf file.  [default: FOLDER/report.html]",
)
def plot(folder: Path, metric: str | None, output: Path | None) -> None:
    """Curves of FOLDER, the --output of a sweep: one for each item and one for each model's mean.

    The report is one HTML file that loads nothing from anywhere. Steps have a logarithmic axis.
    """
    from pythia_bento.sweep.curves import read_chart, usual_metric
    from pythia_bento.sweep.plot import check_output, write

    output = output or folder / "report.html"
    check_output(output)
    chart = read_chart(folder, metric or usual_metric(folder))
    write(chart, output)
    for note in chart.notes:
        click.echo(note, err=True)
    click.echo(output)
