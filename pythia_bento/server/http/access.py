"""API keys over HTTP: who may not ask is refused before anything of the body is read."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pythia_bento.errors import PythiaError
from pythia_bento.server.access.control import AccessControl, note_caller
from pythia_bento.server.http.errors import error_response

# Open to all: probes, metrics, descriptions and pages, which cost and reveal little. Whatever is
# not named needs a key, paths that do not exist included.
OPEN_PATHS = frozenset(
    ("/", "/livez", "/readyz", "/healthz", "/metrics", "/docs.json", "/schema.json", "/playground")
)


OPEN_FOLDERS = ("/playground/", "/static_content/")


# Refused as a whole while the engine is full. Scores are refused one by one, in their answer.
GENERATING = frozenset(("/generate", "/v1/completions"))


class AccessMiddleware:
    """Outermost: who may not ask is refused before anything of the body is read."""

    def __init__(self, app: ASGIApp, access: AccessControl) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the caller's place is held until the last byte of the answer."""
        if scope["type"] != "http" or _is_open(scope):
            return await self.app(scope, receive, send)
        with ExitStack() as stack:
            try:
                key = Headers(scope=scope).get("authorization")
                entry = self.access.enter(key, generates=scope["path"] in GENERATING)
                note_caller(stack.enter_context(entry))
            except PythiaError as error:
                return await error_response(error)(scope, receive, send)
            await self.app(scope, receive, send)


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"]
    if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
        return True
    # Browsers ask so before they send a key; what they may do is BentoML's setting `http.cors`.
    headers = Headers(scope=scope)
    return scope["method"] == "OPTIONS" and "access-control-request-method" in headers
