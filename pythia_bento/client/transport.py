"""The seam between the clients and what carries their calls: HTTP or gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pythia_bento.client.inside import Asked
from pythia_bento.client.options import Connection
from pythia_bento.errors import PythiaError
from pythia_bento.protocol.sweep import Event
from pythia_bento.protocol.types import Info, ModelState, Part, Prompt, ScoreItem, Scores

if TYPE_CHECKING:  # who does not ask for activations needs no numpy
    from pythia_bento.client.patches import PatchGrid
    from pythia_bento.protocol.activations import Activations

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Result]):
    """One call in the messages of its transport, and how an answer to it is read."""

    method: str  # a path, or a method of ``pythia.v1``
    request: Any
    read: Callable[[Any], Result]  # of a stream, each message
    timeout: float | None = None  # seconds, where the client's is not long enough

    def result(self, answer: Any) -> Result:
        """What ``answer`` says; raises PythiaError where it makes no sense."""
        try:
            return self.read(answer)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            message = f"the server's answer to {self.method} cannot be read: {error!r}"
            raise PythiaError(message) from None


class Messages(Protocol):
    """The operations, as a transport says them. ``Client`` describes them."""

    def info(self, model: str | None) -> Operation[Info]: ...

    def models(self) -> Operation[list[ModelState]]: ...

    def generate(
        self, prompt: Prompt, model: str | None, options: Mapping[str, Any]
    ) -> Operation[Part]: ...

    def score(self, items: Sequence[ScoreItem], model: str | None) -> Operation[Scores]: ...

    def sweep(self, asked: Mapping[str, Any]) -> Operation[list[Event]]: ...

    def activations(self, asked: Asked) -> Operation[Activations]: ...

    def patch(self, asked: Asked) -> Operation[PatchGrid]: ...

    def tokenize(self, text: str, model: str | None) -> Operation[list[int]]: ...

    def detokenize(self, ids: Sequence[int], model: str | None) -> Operation[str]: ...


class Transport(Protocol):
    """Blocking calls; ``timeout`` in seconds. Raises leaves of ``pythia_bento.errors``."""

    def call(self, operation: Operation[Result], timeout: float) -> Result: ...

    def fetch(self, operation: Operation[Result], timeout: float) -> Result:
        """The same for an answer of many bytes, which says itself how many."""
        ...

    def stream(
        self, operation: Operation[Result], timeout: float
    ) -> Generator[Result, None, None]: ...

    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """The same for coroutines, in the event loop that it was made in."""

    async def call(self, operation: Operation[Result], timeout: float) -> Result: ...

    async def fetch(self, operation: Operation[Result], timeout: float) -> Result: ...

    def stream(
        self, operation: Operation[Result], timeout: float
    ) -> AsyncGenerator[Result, None]: ...

    async def close(self) -> None: ...


class Carrier(Protocol):
    """A module that has one way of carrying calls."""

    def messages(self) -> Messages: ...

    def connect(self, connection: Connection) -> Transport: ...

    def connect_async(self, connection: Connection) -> AsyncTransport: ...


def known(kind: Any, body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass; a server may be newer and say more."""
    return {name: body[name] for name in kind.__slots__ if name in body}
