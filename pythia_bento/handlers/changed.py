"""Requests with their interventions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from pythia_bento.engine.interventions import Intervention, Interventions, interventions
from pythia_bento.engine.params import Request
from pythia_bento.handlers.changes import Changes
from pythia_bento.handlers.named_tensors import AT_ONCE, NamedTensors
from pythia_bento.protocol import interventions as bodies
from pythia_bento.runtime.served import Served

_ITEM_BYTES = 1000  # what one without values costs, in bytes that are hashed


async def without_tensors(served: Served, body: Sequence[bodies.Intervention]) -> Changes:
    """Of a body that brings no tensors; raises InvalidRequest."""
    return await Changes.of(served, body, NamedTensors(None))


async def changed(request: Request, changes: Changes) -> Request:
    """A request with what ``without_tensors`` has made; raises as ``Changes.of_prompt``."""
    made = [one for one in await changes.of_prompt(0, [request]) if isinstance(one, Intervention)]
    return replace(request, interventions=await digested(made)) if made else request


async def digested(items: Sequence[Intervention]) -> Interventions | None:
    """``engine.interventions``, in a thread where there is much to hash."""
    size = sum(item.values.nbytes for item in items if item.values is not None)
    if size + _ITEM_BYTES * len(items) <= AT_ONCE:
        return interventions(items)
    return await asyncio.to_thread(interventions, items)
