"""Whether a sweep is in anybody's way."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.sweeps.stage import TOKENS, Sizes, entries_of, items_of, runner_of, sweep, told
from pythia_bento.engine.params import Request, SamplingParams, new_request_id
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.sweep.spec import SweepSpec

ASKED = 40  # requests of somebody else, 50 ms apart


def beside(sizes: Sizes, device: str, folder: Path) -> Iterator[dict[str, Any]]:
    """First tokens of the first and of the last checkpoint, alone and beside a sweep over all."""
    entries = entries_of(replace(sizes, checkpoints=min(sizes.checkpoints, 4)), device, folder)
    names = [entry.name for entry in entries]
    spec = SweepSpec(models=tuple(names), items=items_of(sizes.texts[-1], sizes.tokens))
    with runner_of(sizes, device, entries) as served:
        sweep(served, spec.items[:1], names)  # all of them are on the device then
        for name in (names[0], names[-1]):
            alone = asyncio.run(_first_tokens(served, name, None))
            found = asyncio.run(_first_tokens(served, name, spec))
            yield {
                "what": "beside",
                "model": sizes.model,
                "is_default": name == names[0],
                "asked": ASKED,
                "alone_ms": round(statistics.median(alone) * 1e3, 2),
                "beside_ms": round(statistics.median(found) * 1e3, 2),
                "worst_beside_ms": round(max(found) * 1e3, 2),
                "ratio": round(statistics.median(found) / statistics.median(alone), 2),
            }


async def _first_tokens(served: PythiaRunner, name: str, spec: SweepSpec | None) -> list[float]:
    """Seconds of each, while the sweep begins anew whenever it ends."""

    async def again() -> None:
        while spec is not None:
            await told(served, spec)

    sweeping, found = asyncio.create_task(again()), []
    asked = await served.served(name)
    params = SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True)
    for number in range(ASKED):
        await asyncio.sleep(0.05)
        prompt = tuple(random.Random(number).choices(range(100, TOKENS), k=8))
        request = Request(new_request_id(), prompt, params, caller="somebody")
        start = time.perf_counter()
        async with aclosing(asked.generate(request)) as outputs:
            await anext(outputs)
            found.append(time.perf_counter() - start)
            async for _ in outputs:
                pass
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
    return found
