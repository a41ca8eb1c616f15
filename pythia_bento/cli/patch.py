"""``pythia-bento patch``: which places bring one prompt's answer back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_bento.cli.common import json_option, model_option, open_runner, print_json, settings_of
from pythia_bento.errors import InvalidRequest

if TYPE_CHECKING:
    from pythia_bento.client.patches import PatchGrid


@click.command(short_help="Which places bring an answer back.")
@click.argument("clean")
@click.argument("corrupted")
@model_option
@click.option("--site", default="blocks.*.hook_resid_pre", show_default=True)
@click.option("--heads", is_flag=True, help="Patch heads and not positions, of blocks.*.attn....")
@click.option(
    "--tokens",
    multiple=True,
    required=True,
    metavar="TEXT",
    help="Of the metric: one, for its log-probability, or two, for the difference of logits.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .png or .pdf file for the heat map.",
)
@json_option
def patch(
    clean: str,
    corrupted: str,
    model: str | None,
    site: str,
    heads: bool,
    tokens: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
) -> None:
    """Set one place of CORRUPTED at a time to its value in CLEAN, of as many tokens.

    Prints how much of the metric comes back, by layer and token: 0 is as CORRUPTED, 1 as CLEAN.
    """
    from pythia_bento.client.inside import patch_of
    from pythia_bento.client.patches import grid

    if len(tokens) > 2:
        raise InvalidRequest("--tokens may be given once or twice")
    kind = "logit_diff" if len(tokens) == 2 else "logprob"
    over = ("layer", "head" if heads else "position")
    asked = patch_of(clean, corrupted, site, over, (kind, *tokens), None, "transformer-lens")
    body = _answer(model, asked.fields)
    found = grid(body, asked.fields)
    if plot is not None:
        found.plot(plot)
    if as_json:
        print_json(body)
        return
    _print_table(found)
    if plot is not None:
        click.echo(plot)


def _answer(model: str | None, fields: dict[str, object]) -> dict[str, object]:
    from pythia_bento.handlers.patch import patch as handler
    from pythia_bento.protocol.parsing import parse
    from pythia_bento.protocol.patching import PatchRequest

    body = parse(PatchRequest, fields)
    with open_runner(settings_of(model)) as runner:
        return {**asyncio.run(handler(runner, body))}


def _print_table(found: PatchGrid) -> None:
    """A line for each position or head: there are many of these, and few layers."""
    width = max(map(len, found.columns)) + 1
    click.echo(f"{'layer':{width}}" + "".join(f"{layer:7}" for layer in found.layers))
    for column, shares in zip(found.columns, found.recovered.T, strict=True):
        click.echo(f"{column:{width}}" + "".join(f"{share:7.2f}" for share in shares))
    click.echo(f"{found.metric}: clean {found.clean:.4f}, corrupted {found.corrupted:.4f}")
