"""``pythia-bento generate``: continue a prompt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from pythia_bento.cli.common import json_option, model_option, open_runner, print_json, read_text

if TYPE_CHECKING:
    from pythia_bento.protocol.bodies import GenerateRequest
    from pythia_bento.runtime.runner import PythiaRunner


@click.command()
@click.argument("prompt")
@model_option
@click.option("--max-tokens", type=int, default=64, show_default=True)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=int, default=0, show_default=True, help="0 is off.")
@click.option("--top-p", type=float, default=1.0, show_default=True)
@click.option("--min-p", type=float, default=0.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds, equal text.")
@click.option("-n", type=int, default=1, show_default=True, help="Number of continuations.")
@click.option("--stop", multiple=True, help="End before this string; may be repeated.")
@json_option
def generate(prompt: str, model: str | None, as_json: bool, **sampling: Any) -> None:
    """Continue PROMPT; - reads it from standard input.

    The text appears as it is made; with --json all at once, as the server's /generate has it.
    """
    from pythia_bento.handlers.generate import generate as as_response
    from pythia_bento.protocol.bodies import GenerateRequest
    from pythia_bento.protocol.parsing import parse

    sampling["stop"] = list(sampling["stop"])
    fields = {"prompt": read_text(prompt, "prompt"), **sampling}
    request = parse(GenerateRequest, fields)
    with open_runner(model) as runner:
        if as_json:
            print_json(asyncio.run(as_response(runner, request)))
        else:
            _print_text(runner, request)


def _print_text(runner: PythiaRunner, body: GenerateRequest) -> None:
    from pythia_bento.engine.outputs import raise_error
    from pythia_bento.engine.params import Request, new_request_id

    prompt = tuple(runner.tokenizer.encode(body.prompt))
    request = Request(new_request_id(), prompt, body.sampling_params(), body.n)
    if body.n == 1:
        for outputs in runner.submit_sync([request]):
            for output in outputs:
                click.echo(raise_error(output).text, nl=False)
        click.echo()
        return
    for answer in runner.complete_sync([request])[0]:
        click.echo(f"[{answer.index}] {raise_error(answer).text}")
