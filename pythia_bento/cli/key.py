"""``key``: a new API key and its hash."""

from __future__ import annotations

import click

from pythia_bento.cli.common import json_option, print_json


@click.command(short_help="Make a random API key, and its entry for servers.")
@click.argument("name", required=False)
@json_option
def key(name: str | None, as_json: bool) -> None:
    """Make a random API key, for NAME, and the entry that lets a server know it.

    The key itself is shown this once and kept nowhere; the server needs only its hash.
    """
    from pythia_bento.server.access.keys import ApiKey, digest, new_key

    secret = new_key()
    entry = ApiKey.named(name, digest(secret)).entry
    if as_json:
        print_json({"key": secret, "entry": entry})
    else:
        click.echo(f"key, for its user:              {secret}")
        click.echo(f"entry, for PYTHIA_API_KEYS_FILE: {entry}")
