"""A service that has this one twice: in its own Bento, and by the URL in REMOTE."""

from __future__ import annotations

import os
from typing import Any

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pythia_bento.service import Pythia


async def own(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"the gateway's {request.url.path}")


# A probe of BentoML's that fails while the dependency starts holds its connection so long.
@bentoml.service(name="both", workers=1, traffic={"timeout": 10})
@bentoml.asgi_app(Starlette(routes=[Route("/v1/completions", own, methods=["POST"])]))
class Both:
    inner = bentoml.depends(Pythia)
    outer = bentoml.depends(url=os.environ["REMOTE"])

    @bentoml.api
    async def ask(self, fields: dict[str, Any]) -> list[Any]:
        inner = await self.inner.generate(**fields)
        return [inner, await self.outer.to_async.call("generate", **fields)]
