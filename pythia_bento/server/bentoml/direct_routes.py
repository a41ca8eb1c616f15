"""The applications' own routes, reached without searching for them.

BentoML's router asks all its routes and mounts, and those the routes of theirs, for every request,
and each application brings middleware that those around BentoML have already. Together they take as
long as answering does.
"""

from __future__ import annotations

from collections.abc import Mapping

from _bentoml_impl.server import app as bentoml_app  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request as HttpRequest
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pythia_bento.errors import PythiaError
from pythia_bento.server.http.errors import error_response

_direct: dict[tuple[str, str], ASGIApp] = {}  # by method and path


class Shortcut(bentoml_app.ContextMiddleware):  # type: ignore[misc]
    """In the place of BentoML's innermost middleware, whose context only its own APIs read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what has no route without parameters takes BentoML's way."""
        direct = _direct.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if direct is None:
            direct = super().__call__
        await direct(scope, receive, send)


class _Endpoint:
    """One route as an application of its own: the same answers and errors."""

    def __init__(self, app: Starlette, route: Route) -> None:
        self._app = app
        self._answer = route.endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(HttpRequest({**scope, "app": self._app}, receive))
        except PythiaError as error:
            response = error_response(error)
        await response(scope, receive, send)


def install(mounts: Mapping[str, Starlette]) -> None:
    """For the applications at these paths, and servers made from now on in this process."""
    for prefix, app in mounts.items():
        for route in app.routes:
            if isinstance(route, Route) and not route.param_convertors:
                endpoint = ServerErrorMiddleware(_Endpoint(app, route))
                for method in route.methods or ():
                    _direct[method, prefix + route.path] = endpoint
    bentoml_app.ContextMiddleware = Shortcut
