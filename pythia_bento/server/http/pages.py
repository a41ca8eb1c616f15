"""Pages for people: what is served at ``/``, the API, the playground, and training's steps.

They load nothing from other hosts, and the browser is told not to allow it.
"""

from __future__ import annotations

import asyncio
import threading
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from pythia_bento.checkpoints.bundle import BUNDLED_ROOT
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.served import loaded
from pythia_bento.server.http.app import make_app
from pythia_bento.server.http.errors import OrjsonResponse
from pythia_bento.server.openapi.document import describe

TRAINING = BUNDLED_ROOT / "training.jsonl"
POINTS = 80
STATIC = Path(__file__).parent / "static"
ASSETS = frozenset(path.name for path in STATIC.iterdir() if path.suffix in (".css", ".js"))

_DESCRIBING = threading.Lock()
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{inline}; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # ask whether it changed, so that files of one version meet
}


def create_app() -> Starlette:
    """To be mounted at the root, before BentoML's own ``/`` and ``/docs.json``."""
    return make_app(
        [
            Route("/", home),
            Route("/docs", docs),
            Route("/docs.json", description),
            Route("/openapi.json", description),
            Route("/favicon.ico", icon),
            Route("/playground", playground),
            Route("/playground/{name}", asset),
            Route("/steps", steps),
        ]
    )


async def home(request: Request) -> Response:
    """GET ``/``: the model, its commit, and ways on."""
    return _page("home.html", _POLICY.format(inline=""))


async def docs(request: Request) -> Response:
    """GET ``/docs``: Swagger UI, which writes style attributes."""
    return _page("docs.html", _POLICY.format(inline=" 'unsafe-inline'"))


async def description(request: Request) -> Response:
    """GET ``/docs.json`` and ``/openapi.json``; made on a thread the first time: it takes long."""
    return OrjsonResponse(await asyncio.to_thread(_described, loaded(request.app.state.runner)))


def _described(runner: PythiaRunner) -> dict[str, Any]:
    with _DESCRIBING:  # what many ask for at once is made once
        return describe(runner)


async def icon(request: Request) -> Response:
    """GET ``/favicon.ico``, which browsers ask for unasked."""
    return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml", headers=_HEADERS)


async def playground(request: Request) -> Response:
    """GET ``/playground``."""
    return _page("playground.html", _POLICY.format(inline=""))


async def steps(request: Request) -> Response:
    """GET ``/steps``."""
    return _page("steps.html", _POLICY.format(inline=""))


async def asset(request: Request) -> Response:
    """GET ``/playground/{name}``: styles and scripts of all of them; how `bundled` was trained."""
    name = request.path_params["name"]
    if name == "training.json":
        return OrjsonResponse(await asyncio.to_thread(training), headers=_HEADERS)
    if name not in ASSETS:
        raise HTTPException(404)
    return FileResponse(STATIC / name, headers=_HEADERS)


@cache
def training() -> list[tuple[int, float]]:
    """The bundled model's losses: steps that are as far apart on a logarithmic axis, with means.

    Each is the mean of the steps since the one before: single batches swing too much to be seen.
    """
    losses = [orjson.loads(line)["loss"] for line in TRAINING.read_bytes().splitlines()]
    steps = sorted({round(len(losses) ** (part / POINTS)) for part in range(POINTS + 1)})
    spans = zip([0, *steps], steps, strict=False)
    return [(after, round(fmean(losses[before:after]), 4)) for before, after in spans]


def _page(name: str, policy: str) -> Response:
    return FileResponse(STATIC / name, headers={**_HEADERS, "Content-Security-Policy": policy})
