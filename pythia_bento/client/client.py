"""Client and AsyncClient: one interface, whatever carries it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pythia_bento.client.options import Connection, SamplingOptions, Tls, checked, sweep_of
from pythia_bento.client.transport import AsyncTransport, Carrier, Operation, Transport
from pythia_bento.errors import EngineUnavailable
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

TIMEOUT = 600.0  # seconds, as the server's default


_Carried = TypeVar("_Carried")  # Transport, or AsyncTransport


class _BaseClient(ABC, Generic[_Carried]):
    """Where to, how long, and what to say; the clients add the calls."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        tls: Tls | None = None,
    ) -> None:
        """Raises ValueError on a URL of another kind; connects at the first call."""
        connection = Connection.parse(url, api_key=api_key, tls=tls or Tls())
        carrier = _carrier(connection)
        self._timeout = timeout
        self._messages = carrier.messages()
        self._transport = self._connect(carrier, connection)

    @abstractmethod
    def _connect(self, carrier: Carrier, connection: Connection) -> _Carried: ...

    def _generate(
        self, prompt: Prompt, model: str | None, options: Mapping[str, Any]
    ) -> Operation[Part]:
        return self._messages.generate(prompt, model, checked(options))

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


class Client(_BaseClient[Transport]):
    """Talks to one server: ``http://``, ``https://``, ``grpc://`` or ``grpcs://`` host:port.

    ``timeout`` is in seconds: over gRPC the deadline of a call, over HTTP the longest silence.
    All methods raise leaves of ``pythia_bento.errors``: what the server raised,
    EngineUnavailable when it cannot be reached or breaks off, DeadlineExceeded when it took too
    long, and PythiaError itself for an answer that makes no sense.
    ``model`` is any id of the server's shelf, which ``models`` lists; None is its default.
    Close the client, or use it as a context manager.
    """

    def _connect(self, carrier: Carrier, connection: Connection) -> Transport:
        return carrier.connect(connection)

    def info(self, model: str | None = None, *, timeout: float | None = None) -> Info:
        """What answers under a name, by default to requests that have none."""
        return self._transport.call(self._messages.info(model), self._seconds(timeout))

    def models(self, *, timeout: float | None = None) -> list[ModelState]:
        """All that may be asked for, the default first, and where their weights are."""
        return self._transport.call(self._messages.models(), self._seconds(timeout))

    def generate(
        self,
        prompt: Prompt,
        *,
        model: str | None = None,
        timeout: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Generation:
        """Continue a prompt, which is text or token ids."""
        joiner = Joiner()
        for part in self.stream(prompt, model=model, timeout=timeout, **options):
            joiner.add(part)
        return _whole(joiner)

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str | None = None,
        timeout: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Iterator[Part]:
        """The same, part by part; closing the iterator ends the request."""
        operation = self._generate(prompt, model, options)
        return self._transport.stream(operation, self._seconds(timeout))

    def score(
        self, items: Sequence[ScoreItem], *, model: str | None = None, timeout: float | None = None
    ) -> Scores:
        """Log-probabilities of texts, in order; an item that fails has its error in its place.

        An item that names a model of its own is scored by that one.
        """
        return self._transport.call(self._messages.score(items, model), self._seconds(timeout))

    def sweep(
        self,
        items: Iterable[SweepItem | Prompt],
        *,
        model: str | None = None,
        steps: str | Sequence[int] | None = None,
        models: Sequence[str] | None = None,
        task: str | Mapping[str, Any] | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> Generator[Event, None, None]:
        """One sweep: the same texts by many checkpoints, told event by event.

        ``model`` is a name without a revision, ``steps`` is "all", "log", "from:to:by" or a list;
        ``models`` are ids instead of both. ``task`` is a type, or a mapping with the type and its
        fields, as docs/sweeps.md has them. Closing the iterator ends the sweep. What fails of it
        is an event, or the ``error`` of a row.
        """
        asked = sweep_of(items, model, steps, models, task, priority)
        operation = self._messages.sweep(asked)
        seconds = self._seconds(operation.timeout if timeout is None else timeout)
        with closing(self._transport.stream(operation, seconds)) as messages:
            for events in messages:
                yield from events

    def tokenize(
        self, text: str, *, model: str | None = None, timeout: float | None = None
    ) -> list[int]:
        """Token ids of a text, nothing added."""
        return self._transport.call(self._messages.tokenize(text, model), self._seconds(timeout))

    def detokenize(
        self, ids: Sequence[int], *, model: str | None = None, timeout: float | None = None
    ) -> str:
        """The text of token ids."""
        return self._transport.call(self._messages.detokenize(ids, model), self._seconds(timeout))

    def close(self) -> None:
        """End open calls and close the connections; harmless when repeated."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class AsyncClient(_BaseClient[AsyncTransport]):
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
        timeout: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Generation:
        """Continue a prompt, which is text or token ids."""
        joiner = Joiner()
        async for part in self.stream(prompt, model=model, timeout=timeout, **options):
            joiner.add(part)
        return _whole(joiner)

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str | None = None,
        timeout: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> AsyncIterator[Part]:
        """The same, part by part; closing the iterator ends the request."""
        operation = self._generate(prompt, model, options)
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


def _carrier(connection: Connection) -> Carrier:
    """Imported when it is asked for: who uses one transport need not load the other."""
    if connection.is_grpc:
        from pythia_bento.client import grpc_transport

        return grpc_transport
    from pythia_bento.client import http_transport

    return http_transport


def _whole(joiner: Joiner) -> Generation:
    try:
        return joiner.generation()
    except ValueError as error:
        raise EngineUnavailable(f"the server's answer broke off: {error}") from None
