"""``/v1/models``: the checkpoints that may be asked for, and orders to load and unload them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pythia_bento.handlers.info import limits
from pythia_bento.handlers.models import load, provenance, shown_model, states, unload
from pythia_bento.protocol.bodies import LoadRequest, UnloadRequest
from pythia_bento.protocol.parsing import parse
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.served import loaded
from pythia_bento.runtime.served_models import ModelState
from pythia_bento.server.http.body import read_json
from pythia_bento.server.http.errors import OrjsonResponse
from pythia_bento.server.http.json_answer import json_in_pieces

CARDS_AT_ONCE = 32  # of an answer


def routes() -> list[Route]:
    """Those of ``/models``."""
    return [
        Route("/models", models, methods=["GET"]),
        Route("/models/load", load_model, methods=["POST"]),
        Route("/models/unload", unload_model, methods=["POST"]),
        Route("/models/{id:path}", model, methods=["GET"]),
    ]


async def models(request: HttpRequest) -> Response:
    """GET ``/models``."""
    runner = loaded(request.app.state.runner)
    cards = (_card(runner, state) for state in await states(runner))
    return await json_in_pieces({"object": "list"}, CARDS_AT_ONCE, data=cards)


async def model(request: HttpRequest) -> Response:
    """GET ``/models/{id}``."""
    runner = loaded(request.app.state.runner)
    return _answer(runner, await runner.models.state(request.path_params["id"]))


async def load_model(request: HttpRequest) -> Response:
    """POST ``/models/load``: answered once it is on the device."""
    runner = loaded(request.app.state.runner)
    body = parse(LoadRequest, await read_json(request, runner.limits))
    return _answer(runner, await load(runner, body))


async def unload_model(request: HttpRequest) -> Response:
    """POST ``/models/unload``."""
    runner = loaded(request.app.state.runner)
    body = parse(UnloadRequest, await read_json(request, runner.limits))
    return _answer(runner, await unload(runner, body))


def _answer(runner: PythiaRunner, state: ModelState) -> Response:
    return OrjsonResponse(_card(runner, state))


def _card(runner: PythiaRunner, state: ModelState) -> dict[str, Any]:
    info = state.info
    return {
        "id": info.id,
        "object": "model",
        "created": info.created,
        "owned_by": "pythia-bento",
        "root": info.id,
        "parent": None,
        "max_model_len": runner.limits.max_positions,
        **shown_model(state),
        "system_fingerprint": info.fingerprint,
        "limits": asdict(limits(runner)),  # those of one shape have the same
        "provenance": provenance(state),
    }
