"""``pythia-bento serve``: the service, from any directory."""

from __future__ import annotations

import os
import sys

import click

from pythia_bento.cli.common import model_names

SERVICE = "pythia_bento.service:Pythia"


@click.command(short_help="Serve MODEL over HTTP and gRPC.")
@click.argument("model", required=False, shell_complete=model_names)
@click.option(
    "-p", "--port", type=click.IntRange(1, 65535), help="Of HTTP.  [default: BENTOML_PORT or 3000]"
)
@click.option("--host", help="Address to listen on.  [default: BENTOML_HOST or 0.0.0.0]")
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    help="0 is none.  [default: PYTHIA_GRPC_PORT or 3001]",
)
def serve(model: str | None, port: int | None, host: str | None, grpc_port: int | None) -> None:
    """Serve MODEL over HTTP and gRPC; by default PYTHIA_MODEL, else bundled.

    All other settings are PYTHIA_* in the environment. It is `bentoml serve` of the service in this
    package, after a look at settings and files.
    """
    from pythia_bento.runtime.preflight import check_loadable
    from pythia_bento.settings import load_settings

    given = {"model": model, "grpc_port": grpc_port}
    settings = {name: value for name, value in given.items() if value is not None}
    check_loadable(load_settings(settings))
    variables = {f"PYTHIA_{name.upper()}": str(value) for name, value in settings.items()}
    options = {"--port": port, "--host": host}
    chosen = [str(part) for pair in options.items() if pair[1] is not None for part in pair]
    # In this process's place: what ends it, or waits for it, has the server itself.
    os.execve(
        sys.executable,
        [sys.executable, "-m", "bentoml", "serve", SERVICE, *chosen],
        {**os.environ, **variables},
    )
