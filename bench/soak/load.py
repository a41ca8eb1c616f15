"""Mixed requests over HTTP and gRPC, some of them cancelled, in a closed or an open loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from pythia_bento.client import AsyncClient
from pythia_bento.errors import PythiaError

CANCEL_SECONDS = 1.0  # a client that loses patience does so within this time


@dataclass(frozen=True, slots=True)
class Mix:
    """What requests look like: lengths are drawn evenly up to these."""

    vocabulary: int  # prompts are drawn from the ids 1 to this
    prompt: int = 200  # tokens
    new: int = 100  # tokens
    cancelled: float = 0.2  # share of the requests
    streamed: float = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended, as its client saw it."""

    at: float  # time.monotonic() of its end
    kind: str  # "ok", "cancelled", or the error's code
    seconds: float
    first: float | None  # seconds to the first part of a stream
    tokens: int


class Load:
    """Sends requests until told to stop; ``outcomes`` grows meanwhile."""

    def __init__(self, clients: Sequence[AsyncClient], mix: Mix, seed: int = 0) -> None:
        self._clients = clients
        self._mix = mix
        self._random = random.Random(seed)
        self.outcomes: list[Outcome] = []

    async def closed(self, readers: int, seconds: float) -> None:
        """``readers`` that ask one thing after another; all have their answers at the end."""
        end = time.monotonic() + seconds

        async def reader() -> None:
            while time.monotonic() < end:
                await self._ask()

        await asyncio.gather(*(reader() for _ in range(readers)))

    async def open(self, rate: float, seconds: float) -> None:
        """``rate`` requests a second, whatever became of those before (a Poisson process)."""
        end = time.monotonic() + seconds
        tasks = set()
        due = time.monotonic()
        while due < end:
            await asyncio.sleep(due - time.monotonic())
            tasks.add(task := asyncio.create_task(self._ask()))
            task.add_done_callback(tasks.discard)
            due += self._random.expovariate(rate)
        await asyncio.gather(*tasks)

    async def _ask(self) -> None:
        draw, mix = self._random, self._mix
        client = draw.choice(self._clients)
        prompt = [draw.randint(1, mix.vocabulary) for _ in range(draw.randint(1, mix.prompt))]
        asking = _Asking(client, prompt, draw.randint(1, mix.new), draw.random() < mix.streamed)
        patience = draw.random() * CANCEL_SECONDS if draw.random() < mix.cancelled else None
        started = time.monotonic()
        kind = "ok"
        try:
            await asyncio.wait_for(asking.run(), patience)
        except asyncio.TimeoutError:
            kind = "cancelled"
        except PythiaError as error:
            kind = error.code
        now = time.monotonic()
        self.outcomes.append(
            Outcome(now, kind, now - started, asking.first, asking.tokens if kind == "ok" else 0)
        )


class _Asking:
    """One request."""

    def __init__(self, client: AsyncClient, prompt: list[int], new: int, streamed: bool) -> None:
        self._client, self._prompt, self._new, self._streamed = client, prompt, new, streamed
        self._started = time.monotonic()
        self.first: float | None = None
        self.tokens = 0

    async def run(self) -> None:
        """Raises PythiaError."""
        options = {"max_tokens": self._new, "ignore_eos": True}
        if not self._streamed:
            answer = await self._client.generate(self._prompt, **options)  # type: ignore[arg-type]
            self.tokens = sum(len(output.token_ids) for output in answer.outputs)
            return
        stream = self._client.stream(self._prompt, **options)  # type: ignore[arg-type]
        async with aclosing(stream):  # type: ignore[type-var]
            async for part in stream:
                if self.first is None:
                    self.first = time.monotonic() - self._started
                self.tokens += sum(len(delta.token_ids) for delta in part.deltas)
