"""OpenAI's HTTP routes as a Starlette application, to be mounted under ``/v1``."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Route

from pythia_bento.server.http import inside, models
from pythia_bento.server.http.app import make_app
from pythia_bento.server.http.chat import chat
from pythia_bento.server.http.chat_template import ChatTemplate
from pythia_bento.server.http.completions import completions
from pythia_bento.server.http.embeddings import embeddings
from pythia_bento.server.http.sweep import sweep


def create_app(chat_template: ChatTemplate | None = None) -> Starlette:
    """To be mounted under ``/v1``; see ``make_app``. Without a template chat is refused."""
    app = make_app(
        [
            Route("/completions", completions, methods=["POST"]),
            Route("/chat/completions", chat, methods=["POST"]),
            Route("/embeddings", embeddings, methods=["POST"]),
            Route("/sweep", sweep, methods=["POST"]),
            *inside.routes(),
            *models.routes(),
        ]
    )
    app.state.chat_template = chat_template
    return app
