"""Options for what is to be seen of a model's inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pythia_bento.errors import InvalidRequest

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FIELDS = ("capture", "interventions", "logits", "dtype")
MAX_FILE = 8 * 2**20  # bytes, as of a request's body


def capture_options(command: _Command) -> _Command:
    """``--capture``, ``--capture-file`` and ``--dtype``; ``captured`` makes fields of them."""
    options = (
        click.option(
            "--capture",
            multiple=True,
            metavar="SITE",
            help="As 'blocks.*.hook_resid_post' of activations; may be repeated.",
        ),
        click.option(
            "--capture-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="JSON with any of capture, interventions, logits and dtype of activations.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16", "float16"]),
            help="Of activations.  [default: float32]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def captured(given: dict[str, Any]) -> dict[str, Any]:
    """Options as fields of a request; raises InvalidRequest where nothing is to be seen."""
    fields = dict(given)
    path, sites = fields.pop("capture_file", None), fields.pop("capture", ())
    fields = {**({} if path is None else _read(path)), **fields}
    if sites:
        fields["capture"] = [*fields.get("capture", ()), *({"site": site} for site in sites)]
    if not fields.get("capture") and not fields.get("logits"):
        raise InvalidRequest("activations need --capture, or --capture-file with capture or logits")
    return fields


def _read(path: Path) -> dict[str, Any]:
    from pythia_bento.protocol.parsing import loads

    with path.open("rb") as file:
        text = file.read(MAX_FILE + 1)
    if len(text) > MAX_FILE:
        raise InvalidRequest(f"{path} is longer than {MAX_FILE:,} bytes")
    try:
        found = loads(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error.message.replace('the body', 'it', 1)}") from None
    if not isinstance(found, dict) or not found.keys() <= set(_FIELDS):
        raise InvalidRequest(f"{path} must be an object with {', '.join(_FIELDS)}")
    return found
