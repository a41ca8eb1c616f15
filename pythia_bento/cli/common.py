"""What several commands share: options, and a runner with a progress bar."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pythia_bento.errors import InvalidRequest

if TYPE_CHECKING:
    from pythia_bento.runtime.runner import PythiaRunner

model_option = click.option(
    "-m",
    "--model",
    help="Model id, bundled, or ./directory.  [default: PYTHIA_MODEL, else bundled]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def open_runner(model: str | None) -> Iterator[PythiaRunner]:
    """Load ``model`` with the settings of the environment; a bar on stderr shows how far it is."""
    from pythia_bento.runtime.progress import ProgressBars
    from pythia_bento.runtime.runner import PythiaRunner
    from pythia_bento.settings import load_settings

    settings = load_settings({} if model is None else {"model": model})
    with ProgressBars() as bars:
        runner = PythiaRunner.load(settings, bars)
    with runner:
        yield runner


def read_text(argument: str, name: str) -> str:
    """``argument`` itself, or standard input for ``-``; raises InvalidRequest if not UTF-8."""
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from None


def print_json(value: Any) -> None:
    """Indented, non-ASCII characters as they are."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
