"""OpenAI's HTTP routes as a Starlette application, to be mounted under ``/v1``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pythia_bento.handlers.info import limits
from pythia_bento.runtime.runner import PythiaRunner, loaded
from pythia_bento.server.http.app import make_app
from pythia_bento.server.http.chat import chat
from pythia_bento.server.http.chat_template import ChatTemplate
from pythia_bento.server.http.completions import completions
from pythia_bento.server.http.errors import OrjsonResponse


def create_app(chat_template: ChatTemplate | None = None) -> Starlette:
    """To be mounted under ``/v1``; see ``make_app``. Without a template chat is refused."""
    app = make_app(
        [
            Route("/completions", completions, methods=["POST"]),
            Route("/chat/completions", chat, methods=["POST"]),
            Route("/models", models, methods=["GET"]),
            Route("/models/{id:path}", model, methods=["GET"]),
        ]
    )
    app.state.chat_template = chat_template
    return app


async def models(request: HttpRequest) -> Response:
    """GET ``/models``."""
    return OrjsonResponse({"object": "list", "data": [_card(loaded(request.app.state.runner))]})


async def model(request: HttpRequest) -> Response:
    """GET ``/models/{id}``."""
    runner = loaded(request.app.state.runner)
    runner.check_model(request.path_params["id"])
    return OrjsonResponse(_card(runner))


def _card(runner: PythiaRunner) -> dict[str, Any]:
    return {
        "id": runner.info.id,
        "object": "model",
        "created": runner.info.created,
        "owned_by": "pythia-bento",
        "root": runner.info.id,
        "parent": None,
        "max_model_len": runner.limits.max_positions,
        "system_fingerprint": runner.info.fingerprint,
        "aliases": runner.info.aliases,
        "limits": asdict(limits(runner)),
        "provenance": asdict(runner.info.provenance) if runner.info.provenance else None,
    }
