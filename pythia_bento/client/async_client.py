"""``AsyncClient``: ``Client`` for coroutines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from pythia_bento.client.base import BaseClient, whole
from pythia_bento.client.inside import activations_of, patch_of
from pythia_bento.client.options import Connection, SamplingOptions, sweep_of
from pythia_bento.client.specs import Spec
from pythia_bento.client.transport import AsyncTransport, Carrier
from pythia_bento.protocol.sweep import Event, SweepItem
from pythia_bento.protocol.types import (
    Generation,
    Info,
    Joiner,
    ModelState,
    Part,
    Prompt,
    ScoreItem,
    Scores,
)

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from pythia_bento.client.patches import PatchGrid
    from pythia_bento.protocol.activations import Activations


class AsyncClient(BaseClient[AsyncTransport]):
    """``Client`` for coroutines; make it in the event loop that uses it."""

    def _connect(self, carrier: Carrier, connection: Connection) -> AsyncTransport:
        return carrier.connect_async(connection)

    async def info(self, model: str | None = None, *, timeout: float | None = None) -> Info:
        """What answers under a name, by default to requests that have none."""
        return await self._transport.call(self._messages.info(model), self._seconds(timeout))

    async def models(self, *, timeout: float | None = None) -> list[ModelState]:
        """All that may be asked for, the default first, and where their weights are."""
        return await self._transport.call(self._messages.models(), self._seconds(timeout))

    async def generate(
        self,
        prompt: Prompt,
        *,
        model: str | None = None,
        interventions: Sequence[Mapping[str, Any]] = (),
        timeout: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Generation:
        """Continue a prompt, which is text or token ids."""
        joiner = Joiner()
        told = self.stream(
            prompt, model=model, interventions=interventions, timeout=timeout, **options
        )
        async for part in told:
            joiner.add(part)
        return whole(joiner)

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str | None = None,
        interventions: Sequence[Mapping[str, Any]] = (),
        timeout: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> AsyncIterator[Part]:
        """The same, part by part; closing the iterator ends the request."""
        operation = self._generate(prompt, model, interventions, options)
        return self._transport.stream(operation, self._seconds(timeout))

    async def score(
        self, items: Sequence[ScoreItem], *, model: str | None = None, timeout: float | None = None
    ) -> Scores:
        """Log-probabilities of texts, in order; an item that fails has its error in its place."""
        return await self._transport.call(
            self._messages.score(items, model), self._seconds(timeout)
        )

    async def sweep(
        self,
        items: Iterable[SweepItem | Prompt],
        *,
        model: str | None = None,
        steps: str | Sequence[int] | None = None,
        models: Sequence[str] | None = None,
        task: str | Mapping[str, Any] | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Event, None]:
        """As ``Client.sweep``."""
        asked = sweep_of(items, model, steps, models, task, priority)
        operation = self._messages.sweep(asked)
        seconds = self._seconds(operation.timeout if timeout is None else timeout)
        async with aclosing(self._transport.stream(operation, seconds)) as messages:
            async for events in messages:
                for event in events:
                    yield event

    async def activations(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        capture: Spec | Sequence[Spec],
        model: str | None = None,
        interventions: Sequence[Mapping[str, Any]] = (),
        logits: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        names: str = "transformer-lens",
        timeout: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Activations:
        """As ``Client.activations``."""
        asked = activations_of(
            prompts, capture, model, interventions, logits, dtype, names, options
        )
        return await self._transport.fetch(
            self._messages.activations(asked), self._seconds(timeout)
        )

    async def patch(
        self,
        clean: Prompt,
        corrupted: Prompt,
        site: str,
        *,
        metric: Sequence[Any] | Mapping[str, Any],
        over: Sequence[str] = ("layer", "position"),
        model: str | None = None,
        names: str = "transformer-lens",
        timeout: float | None = None,
    ) -> PatchGrid:
        """As ``Client.patch``."""
        asked = patch_of(clean, corrupted, site, over, metric, model, names)
        return await self._transport.call(self._messages.patch(asked), self._seconds(timeout))

    async def tokenize(
        self, text: str, *, model: str | None = None, timeout: float | None = None
    ) -> list[int]:
        """Token ids of a text, nothing added."""
        return await self._transport.call(
            self._messages.tokenize(text, model), self._seconds(timeout)
        )

    async def detokenize(
        self, ids: Sequence[int], *, model: str | None = None, timeout: float | None = None
    ) -> str:
        """The text of token ids."""
        return await self._transport.call(
            self._messages.detokenize(ids, model), self._seconds(timeout)
        )

    async def close(self) -> None:
        """End open calls and close the connections; harmless when repeated."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
