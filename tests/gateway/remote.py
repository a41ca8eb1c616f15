"""A service that depends on a server of this one, by the URL in REMOTE, with and without types."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Any

import bentoml

from pythia_bento.service import Pythia

URL = os.environ["REMOTE"]


@bentoml.service(name="remote", workers=1, traffic={"timeout": 10})
class Remote:
    untyped = bentoml.depends(url=URL)
    typed = bentoml.depends(Pythia, url=URL)

    @bentoml.api
    async def tell(self, fields: dict[str, Any]) -> list[Any]:
        """By both."""
        typed = await self.typed.generate(**fields)
        return [typed, await self.untyped.to_async.call("generate", **fields)]

    @bentoml.api
    async def narrate(self, fields: dict[str, Any]) -> AsyncGenerator[str, None]:
        async for piece in self.typed.generate_stream(**fields):
            yield piece

    @bentoml.api
    async def narrate_untyped(self, fields: dict[str, Any]) -> AsyncGenerator[str, None]:
        async for piece in self.untyped.to_async.call("generate_stream", **fields):
            yield piece

    @bentoml.api
    async def judge(self, items: list[Any]) -> list[Any]:
        """By both."""
        typed = await self.typed.score(items=items)
        return [typed, await self.untyped.to_async.call("score", items=items)]
