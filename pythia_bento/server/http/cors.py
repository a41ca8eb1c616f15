"""Pages of other origins that may ask from a browser (``PYTHIA_CORS_ORIGINS``)."""

from __future__ import annotations

from typing import Any

from pythia_bento.settings import Settings


def cors(settings: Settings) -> dict[str, Any]:
    """Options of starlette's CORSMiddleware, which belongs outside of what may refuse a request.

    Pages read refusals then too, and preflights, which bring no key, are answered. Cookies are for
    nobody: a page sends its key as a header that it has to know.
    """
    return {
        "allow_origins": [origin.strip() for origin in settings.cors_origins.split(",")],
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["*"],  # clients send some of their own, as x-stainless-...
        "expose_headers": ["X-Request-Id", "Retry-After"],
    }
