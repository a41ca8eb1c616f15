"""The command line, ``pythia-bento <command>``.

Failures are one line on stderr, ``error: ...``; the exit status is 2 when the input is at fault
and 1 otherwise. Whatever imports torch is imported by the commands that need it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from pythia_bento import __version__
from pythia_bento.cli.activations import activations
from pythia_bento.cli.checkpoints import checkpoints, lock, quantize, verify
from pythia_bento.cli.generate import generate
from pythia_bento.cli.key import key
from pythia_bento.cli.listing import list_models
from pythia_bento.cli.patch import patch
from pythia_bento.cli.plot import plot
from pythia_bento.cli.pull import pull
from pythia_bento.cli.score import score
from pythia_bento.cli.serve import serve
from pythia_bento.cli.sweep import sweep
from pythia_bento.errors import PythiaError

INPUT, OTHER = 2, 1  # exit status by whose fault it is


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    no_args_is_help=False,
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """Pythia language models in 8 bits. Settings (PYTHIA_MODEL, ...) come from the environment."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    *(serve, list_models, generate, score, sweep, activations, patch),
    *(pull, lock, verify, checkpoints, quantize, key),
    plot,
):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    try:
        status = commands.main(arguments, prog_name="pythia-bento", standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except PythiaError as error:
        _fail(error.message, INPUT if _input_is_at_fault(error) else OTHER)
    except OSError as error:  # a home that cannot be written, a file that is none
        _fail(_cannot(error), OTHER)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", OTHER)
    sys.exit(status or 0)


def _cannot(error: OSError) -> str:
    """What the system refused, and where."""
    why = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {why}" if error.filename else why


def _input_is_at_fault(error: PythiaError) -> bool:
    from pythia_bento.settings import SettingsError

    return error.type == "invalid_request_error" or isinstance(error, SettingsError)


def _fail(message: str, status: int) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
