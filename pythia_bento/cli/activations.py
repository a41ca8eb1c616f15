"""``pythia-bento activations``: what a model computes of a text."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_bento.cli.capturing import capture_options, captured
from pythia_bento.cli.common import (
    check_text,
    json_option,
    limits_of_any,
    model_option,
    open_runner,
    print_json,
    read_text,
    settings_of,
)
from pythia_bento.errors import InvalidRequest

if TYPE_CHECKING:
    from pythia_bento.protocol.activations import Run
    from pythia_bento.protocol.inside import ActivationsRequest
    from pythia_bento.settings import Settings


@click.command(short_help="What a model computes of TEXT, layer by layer.")
@click.argument("text")
@model_option
@capture_options
@click.option(
    "--positions",
    help="all, last, a list as 0,4,-1, or FROM:TO, of each --capture.  [default: all]",
)
@click.option("--max-tokens", type=int, default=0, show_default=True, help="Generate, too.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="0 is greedy.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .safetensors file of all numbers.",
)
@json_option
def activations(
    text: str,
    model: str | None,
    positions: str | None,
    out: Path | None,
    as_json: bool,
    capture: tuple[str, ...],
    capture_file: Path | None,
    dtype: str | None,
    **sampling: Any,
) -> None:
    """See inside of a pass over TEXT; - reads it from standard input.

    Prints shape and size of what was captured, a line each, and with --out writes it: the file that
    the server's /v1/activations answers with, which safetensors reads. --json has all numbers of
    few.
    """
    given = {"capture": capture, "capture_file": capture_file, "dtype": dtype}
    fields = captured({name: value for name, value in given.items() if value is not None})
    if positions is not None:
        for one in fields.get("capture", ()):
            one.setdefault("positions", _positions(positions))
    text = read_text(text, "text")
    settings = settings_of(model)
    check_text(text, "text", limits_of_any(settings))
    file = _asked(settings, {"prompts": [text], **fields, **sampling})
    _show(file, out, as_json)


def _asked(settings: Settings, fields: dict[str, Any]) -> bytearray:
    """The answer to a body."""
    from pythia_bento.protocol.inside import ActivationsRequest
    from pythia_bento.protocol.parsing import parse

    body = parse(ActivationsRequest, fields)
    with open_runner(settings) as runner:
        return asyncio.run(_answer(runner, body))


async def _answer(runner: Any, body: ActivationsRequest) -> bytearray:
    from pythia_bento.handlers.inside import activations as handler
    from pythia_bento.handlers.inside_file import file_of

    return await file_of(await handler(runner, body))


def _show(file: bytearray, out: Path | None, as_json: bool) -> None:
    from pythia_bento.protocol.activations import read

    found = read(file)
    if out is not None:
        out.write_bytes(file)
    if as_json:
        names = {"model": found.model, "system_fingerprint": found.fingerprint}
        print_json({**names, **found[0].as_dict()})
        return
    _print_table(found[0])
    if out is not None:
        click.echo(f"{out}: {len(file):,} bytes")


def _print_table(run: Run) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("site")
    for name in ("shape", "mean", "largest"):
        table.add_column(name, justify="right")
    for name, array in run.items():
        shape = " x ".join(map(str, array.shape))
        sizes = (array.mean(), abs(array).max()) if array.size else (0.0, 0.0)
        table.add_row(name, shape, *(f"{size:.4g}" for size in sizes))
    Console(highlight=False).print(table)
    if run.completion is not None:
        click.echo(run.completion.text)


def _positions(text: str) -> Any:
    """As a request has them; raises InvalidRequest."""
    if text in ("all", "last", "prompt", "generated"):
        return text
    try:
        if ":" in text:
            start, stop = (int(part) if part else None for part in text.split(":"))
            return {"from": start, "to": stop}
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidRequest(
            f"--positions must be all, last, a list as 0,4,-1, or FROM:TO, not {text!r}"
        ) from None
