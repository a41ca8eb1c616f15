"""A service of somebody else's that depends on this one: ``tests.gateway.service:Gateway``.

It has routes of its own by the names of ours, in an application of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pythia_bento.service import Pythia
from tests.gateway import PATHS


async def own(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"the gateway's {request.url.path}, {GREETING}")


GREETING = vars(bentoml.use_arguments()).get("greeting", "none")
app = Starlette(routes=[Route(path, own, methods=["GET", "POST"]) for path in PATHS])


# A probe of BentoML's that fails while the dependency starts holds its connection so long.
@bentoml.service(name="gateway", workers=1, traffic={"timeout": 10})
@bentoml.asgi_app(app)
class Gateway:
    pythia = bentoml.depends(Pythia)

    def __init__(self) -> None:
        self.asked = bentoml.metrics.Counter("gateway_asked", "Calls of the gateway's APIs.")

    @bentoml.api
    async def tell(self, fields: dict[str, Any]) -> dict[str, Any]:
        self.asked.inc()
        return await self.pythia.generate(**fields)

    @bentoml.api
    def tell_in_a_thread(self, fields: dict[str, Any]) -> dict[str, Any]:
        return self.pythia.to_sync.generate(**fields)

    @bentoml.api
    async def narrate(self, fields: dict[str, Any]) -> AsyncGenerator[str, None]:
        async for piece in self.pythia.generate_stream(**fields):
            yield piece

    @bentoml.api
    async def judge(self, items: list[Any]) -> list[Any]:
        return await self.pythia.score(items=items)
