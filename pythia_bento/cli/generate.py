"""``pythia-bento generate``: continue a prompt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from pythia_bento.cli.colours import Writer
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

if TYPE_CHECKING:
    from pythia_bento.engine.validate import Limits
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
@click.option("--seed", type=int, help="Equal seeds, equal text.  [default: drawn, and shown]")
@click.option("-n", type=int, default=1, show_default=True, help="Number of continuations.")
@click.option("--stop", multiple=True, help="End before this string; may be repeated.")
@json_option
def generate(prompt: str, model: str | None, as_json: bool, **sampling: Any) -> None:
    """Continue PROMPT; - reads it from standard input.

    The text appears as it is made; with --json all at once, as the server's /generate has it. In a
    terminal colours say how likely a token was.
    """
    from pythia_bento.handlers import generate as handler
    from pythia_bento.protocol.bodies import GenerateRequest
    from pythia_bento.protocol.parsing import parse

    sampling["stop"] = list(sampling["stop"])
    request = parse(GenerateRequest, {"prompt": read_text(prompt, "prompt"), **sampling})
    settings = settings_of(model)
    _check(request, limits_of_any(settings))
    with open_runner(settings) as runner:
        if request.n == 1 and not as_json:
            _say_seed(request, asyncio.run(_print_while_made(runner, request)))
            return
        answer = asyncio.run(handler.generate(runner, request))
    if as_json:
        print_json(answer)
        return
    for index, output in enumerate(answer["outputs"]):
        click.echo(f"[{index}] {output['text']}")
    _say_seed(request, answer["seed"])


def _check(body: GenerateRequest, limits: Limits) -> None:
    """Raise InvalidRequest for what no model would do."""
    from pythia_bento.engine.params import Request
    from pythia_bento.engine.validate import validate

    check_text(body.prompt, "prompt", limits)
    validate(Request("", (0,), body.sampling_params(), body.num_sequences), limits)


def _say_seed(asked: GenerateRequest, seed: int | None) -> None:
    if asked.seed is None and seed is not None:
        click.echo(f"seed {seed}: with --seed {seed} the same again", err=True)


async def _print_while_made(runner: PythiaRunner, body: GenerateRequest) -> int | None:
    """The seed that was drawn, if one was."""
    from pythia_bento.engine.outputs import raise_error
    from pythia_bento.engine.params import new_request_id
    from pythia_bento.handlers.requests import make_request, with_seed

    writer, body = Writer(), with_seed(body, runner)
    if writer.has_colours:
        body = body.model_copy(update={"logprobs": 0})
    request = await make_request(runner, new_request_id(), body.prompt, body)
    async for outputs in await runner.submit([request]):
        for output in map(raise_error, outputs):
            writer.write(output.text, [token.logprob for token in output.logprobs or ()])
    click.echo()
    return body.seed
