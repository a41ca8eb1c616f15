"""What the mounted Starlette applications share: the runner behind them, and errors."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pythia_bento.errors import PythiaError
from pythia_bento.server.http.errors import error_response


def make_app(routes: Sequence[Route]) -> Starlette:
    """An application that answers once ``app.state.runner`` is a PythiaRunner.

    ``app.state.check_open`` raises EngineUnavailable while the server shuts down.

    It counts on ``RequestMiddleware`` around it, for the size limit and for clients that leave.
    """
    app = Starlette(routes=routes, exception_handlers={PythiaError: _pythia_error})
    app.state.runner = None
    app.state.check_open = lambda: None
    return app


async def _pythia_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, PythiaError)
    return error_response(error)
