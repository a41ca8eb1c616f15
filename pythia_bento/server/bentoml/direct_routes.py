"""The applications' own routes, reached without searching for them.

BentoML's router asks all its routes and mounts, and those the routes of theirs, for every request,
and each application brings middleware that those around BentoML have already. Together they take as
long as answering does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pythia_bento.errors import PythiaError
from pythia_bento.server.http.errors import error_response
from pythia_bento.server.openapi.operations import operation_of

Routes = Mapping[tuple[str, str], ASGIApp]  # by method and path


class DirectRoutes:
    """The innermost layer; what has no route without parameters takes BentoML's way."""

    def __init__(self, app: ASGIApp, routes: Routes) -> None:
        self.app = app
        self._routes = routes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        direct = None
        if scope["type"] == "http":
            direct = self._routes.get((scope["method"], scope["path"]))
        return (direct or self.app)(scope, receive, send)


def routes_of(mounts: Iterable[tuple[Starlette, str]]) -> Routes:
    """Those of OPERATIONS that applications answer, each of which is mounted at a path."""
    return {
        (method, path): _Direct(app, route)
        for app, mount in mounts
        for route in app.routes
        if isinstance(route, Route) and not route.param_convertors
        if operation_of(path := mount.rstrip("/") + route.path)
        for method in route.methods or ()
    }


class _Direct:
    """One route as an application of its own: the same answers and errors."""

    def __init__(self, app: Starlette, route: Route) -> None:
        self._app = app
        self._endpoint = route.endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._endpoint(HttpRequest({**scope, "app": self._app}, receive))
        except PythiaError as error:
            response = error_response(error)
        except Exception:  # answered here, within the layers that look on, and logged outside
            await PlainTextResponse("Internal Server Error", 500)(scope, receive, send)
            raise
        await response(scope, receive, send)
