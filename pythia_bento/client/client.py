"""Client and AsyncClient: one interface, whatever carries it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING

from pythia_bento.client.options import Connection, SamplingOptions, Tls, checked
from pythia_bento.client.transport import Scores, connect, connect_async
from pythia_bento.protocol.types import Generation, Info, Joiner, Part, Prompt, ScoreItem, joined

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

TIMEOUT = 600.0  # seconds, as the server's default


class Client:
    """Talks to one server: ``http://``, ``https://``, ``grpc://`` or ``grpcs://`` host:port.

    ``timeout`` is in seconds: over gRPC the deadline of a call, over HTTP the longest silence.
    All methods raise leaves of ``pythia_bento.errors``: what the server raised,
    EngineUnavailable when it cannot be reached, DeadlineExceeded when it took too long.
    Close the client, or use it as a context manager.
    """

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
        self._timeout = timeout
        self._transport = connect(connection)

    def info(self, *, timeout: float | None = None) -> Info:
        """What is served."""
        return self._transport.info(self._seconds(timeout))

    def generate(
        self, prompt: Prompt, *, timeout: float | None = None, **options: Unpack[SamplingOptions]
    ) -> Generation:
        """Continue a prompt, which is text or token ids."""
        return joined(self.stream(prompt, timeout=timeout, **options))

    def stream(
        self, prompt: Prompt, *, timeout: float | None = None, **options: Unpack[SamplingOptions]
    ) -> Iterator[Part]:
        """The same, part by part; closing the iterator ends the request."""
        return self._transport.stream(prompt, checked(options), self._seconds(timeout))

    def score(self, items: Sequence[ScoreItem], *, timeout: float | None = None) -> Scores:
        """Log-probabilities of texts, in order; an item that fails has its error in its place."""
        return self._transport.score(items, self._seconds(timeout))

    def tokenize(self, text: str, *, timeout: float | None = None) -> list[int]:
        """Token ids of a text, nothing added."""
        return self._transport.tokenize(text, self._seconds(timeout))

    def detokenize(self, ids: Sequence[int], *, timeout: float | None = None) -> str:
        """The text of token ids."""
        return self._transport.detokenize(ids, self._seconds(timeout))

    def close(self) -> None:
        """Harmless when repeated."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


class AsyncClient:
    """``Client`` for coroutines; make it in the event loop that uses it."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        tls: Tls | None = None,
    ) -> None:
        """See Client, here and below."""
        connection = Connection.parse(url, api_key=api_key, tls=tls or Tls())
        self._timeout = timeout
        self._transport = connect_async(connection)

    async def info(self, *, timeout: float | None = None) -> Info:
        """What is served."""
        return await self._transport.info(self._seconds(timeout))

    async def generate(
        self, prompt: Prompt, *, timeout: float | None = None, **options: Unpack[SamplingOptions]
    ) -> Generation:
        """Continue a prompt, which is text or token ids."""
        joiner = Joiner()
        async for part in self.stream(prompt, timeout=timeout, **options):
            joiner.add(part)
        return joiner.generation()

    def stream(
        self, prompt: Prompt, *, timeout: float | None = None, **options: Unpack[SamplingOptions]
    ) -> AsyncIterator[Part]:
        """The same, part by part; closing the iterator ends the request."""
        return self._transport.stream(prompt, checked(options), self._seconds(timeout))

    async def score(self, items: Sequence[ScoreItem], *, timeout: float | None = None) -> Scores:
        """Log-probabilities of texts, in order; an item that fails has its error in its place."""
        return await self._transport.score(items, self._seconds(timeout))

    async def tokenize(self, text: str, *, timeout: float | None = None) -> list[int]:
        """Token ids of a text, nothing added."""
        return await self._transport.tokenize(text, self._seconds(timeout))

    async def detokenize(self, ids: Sequence[int], *, timeout: float | None = None) -> str:
        """The text of token ids."""
        return await self._transport.detokenize(ids, self._seconds(timeout))

    async def close(self) -> None:
        """Harmless when repeated."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout
