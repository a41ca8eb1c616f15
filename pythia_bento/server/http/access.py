"""API keys over HTTP: who may not ask is refused before anything of the body is read."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pythia_bento.errors import PythiaError
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.http.errors import error_response
from pythia_bento.server.openapi.operation import Operation
from pythia_bento.server.openapi.operations import operation_of


class AccessMiddleware:
    """The outermost layer that may refuse: those around it count, name, log and time requests.

    Which paths are open to all, and which are refused unread while the engine is full, is said in
    OPERATIONS. Scores are refused one by one, in their answer. Whatever is not in there needs a
    key, paths that do not exist included.
    """

    def __init__(self, app: ASGIApp, access: AccessControl) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the caller's place is held until the last byte of the answer."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        operation = operation_of(scope["path"])
        if (operation and not operation.needs_key) or _is_preflight(scope):
            return await self.app(scope, receive, send)
        with ExitStack() as stack:
            try:
                self._enter(stack, scope, operation)
            except PythiaError as error:
                return await error_response(error)(scope, receive, send)
            await self.app(scope, receive, send)

    def _enter(self, stack: ExitStack, scope: Scope, operation: Operation | None) -> None:
        key = Headers(scope=scope).get("authorization")
        generates = operation is not None and operation.generates
        stack.enter_context(self.access.enter(key, generates=generates))


def _is_preflight(scope: Scope) -> bool:
    """Browsers ask so before they send a key.

    With ``PYTHIA_CORS_ORIGINS`` it is answered further outside; with BentoML's own setting
    ``http.cors`` the layer that answers is inside of this one.
    """
    headers = Headers(scope=scope)
    return scope["method"] == "OPTIONS" and "access-control-request-method" in headers
