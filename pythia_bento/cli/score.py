"""``pythia-bento score``: how likely a text is, token by token."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import click

from pythia_bento.cli.colours import style_of
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
from pythia_bento.errors import InvalidRequest, PythiaError


@click.command(short_help="How likely every token of TEXT is.")
@click.argument("text")
@model_option
@json_option
def score(text: str, model: str | None, as_json: bool) -> None:
    """Log-probability of every token of TEXT but the first; - reads it from standard input.

    Logarithms are natural. Beside each token stands the one that was most likely there. In a
    terminal colours say how likely a token was.
    """
    text = read_text(text, "text")
    settings = settings_of(model)
    check_text(text, "text", limits_of_any(settings))
    with open_runner(settings) as runner:
        from pythia_bento.handlers.score import score as as_response

        [response] = asyncio.run(as_response(runner, [{"prompt": text, "logprobs": 1}]))
    result = dict[str, Any](response)
    if "error" in result:
        raise _error(result["error"])
    if not result["num_tokens"]:
        raise InvalidRequest("text is one token long; scores begin with the second")
    result["perplexity"] = math.exp(-result["logprob"] / result["num_tokens"])
    if as_json:
        print_json(result)
    else:
        _print_table(result)


def _error(body: dict[str, Any]) -> PythiaError:
    kind = InvalidRequest if body["type"] == InvalidRequest.type else PythiaError
    return kind(body["message"])


def _print_table(result: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("token")
    table.add_column("logprob", justify="right")
    table.add_column("most likely")
    table.add_column("logprob", justify="right")
    for token in result["tokens"]:
        best = token["top"][0]
        table.add_row(*_cells(token, style_of(token["logprob"])), *_cells(best))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{result['num_tokens']} tokens, log-probability {result['logprob']:.4f}, "
        f"perplexity {result['perplexity']:.4f}"
    )


def _cells(token: dict[str, Any], style: str = "") -> tuple[Any, Any]:
    from rich.text import Text

    return Text(repr(token["text"]), style), Text(f"{token['logprob']:.4f}", style)
