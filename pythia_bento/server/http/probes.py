"""What tools and gateways ask first: ``/health``, ``/ping`` and ``/version``, as vLLM has them."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pythia_bento import __version__
from pythia_bento.runtime.served import loaded
from pythia_bento.server.http.app import make_app
from pythia_bento.server.http.errors import OrjsonResponse


def create_app() -> Starlette:
    """To be mounted at the root. ``state.check_ready`` raises EngineUnavailable, as ``/readyz``."""
    app = make_app(
        [
            Route("/health", health),
            Route("/ping", health),
            Route("/version", version),
        ]
    )
    app.state.check_ready = lambda: loaded(None)
    return app


async def health(request: Request) -> Response:
    """GET ``/health`` and ``/ping``: an empty answer while requests are taken."""
    check: Callable[[], object] = request.app.state.check_ready
    check()
    return Response(media_type="text/plain")


async def version(request: Request) -> Response:
    """GET ``/version``."""
    return OrjsonResponse({"version": __version__})
