"""What several commands share: options, and a runner with a progress bar."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_bento import catalog
from pythia_bento.errors import InvalidRequest

if TYPE_CHECKING:
    from pythia_bento.engine.validate import Limits
    from pythia_bento.runtime.runner import PythiaRunner
    from pythia_bento.settings import Settings

ANY_MODEL = 2**31 - 1  # tokens and positions: no model has more


def model_names(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """For shells that complete what was begun."""
    return [name for name in (catalog.BUNDLED, *catalog.MODELS) if name.startswith(begun)]


model_option = click.option(
    "-m",
    "--model",
    shell_complete=model_names,
    help="Model id, bundled, or ./directory.  [default: PYTHIA_MODEL, else bundled]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
lock_option = click.option(
    "--lock",
    "lock_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("pythia.lock"),
    show_default=True,
    help="The lock file.",
)


def settings_of(model: str | None) -> Settings:
    """Those of the environment, with ``model`` where it is given."""
    from pythia_bento.settings import load_settings

    return load_settings({} if model is None else {"model": model})


def limits_of_any(settings: Settings) -> Limits:
    """What no model would allow: for what can be refused before one is loaded."""
    from pythia_bento.runtime.loading import limits_of

    return limits_of(settings, ANY_MODEL, ANY_MODEL, ANY_MODEL)


def check_text(text: str, name: str, limits: Limits) -> None:
    """Raise InvalidRequest for a text that no model takes."""
    from pythia_bento.engine import tokenizer, validate

    if not text:
        raise InvalidRequest(f"{name} is empty; it needs at least one token", param=name)
    validate.check_text(name, len(text), limits)
    tokenizer.check_unicode(text, name)


@contextmanager
def open_runner(settings: Settings) -> Iterator[PythiaRunner]:
    """Load the model; a bar on stderr shows how far it is."""
    from pythia_bento.runtime.backend import SWITCH_SECONDS
    from pythia_bento.runtime.progress import ProgressBars
    from pythia_bento.runtime.runner import PythiaRunner

    with ProgressBars() as bars:
        runner = PythiaRunner.load(settings, bars)
    sys.setswitchinterval(SWITCH_SECONDS)
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


def shortened(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def print_json(value: Any) -> None:
    """Indented, non-ASCII characters as they are."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
