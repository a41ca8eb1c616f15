"""What the clients share: where to, how long, and what to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from pythia_bento.client.options import Connection, Tls, generation_of
from pythia_bento.client.transport import Carrier, Operation
from pythia_bento.errors import EngineUnavailable
from pythia_bento.protocol.types import Generation, Joiner, Part, Prompt

TIMEOUT = 600.0  # seconds, as the server's default
_Carried = TypeVar("_Carried")  # Transport, or AsyncTransport


class BaseClient(ABC, Generic[_Carried]):
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
        self,
        prompt: Prompt,
        model: str | None,
        interventions: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
    ) -> Operation[Part]:
        return self._messages.generate(prompt, model, generation_of(interventions, options))

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


def _carrier(connection: Connection) -> Carrier:
    """Imported when it is asked for: who uses one transport need not load the other."""
    if connection.is_grpc:
        from pythia_bento.client import grpc_transport

        return grpc_transport
    from pythia_bento.client import http_transport

    return http_transport


def whole(joiner: Joiner) -> Generation:
    """Of all parts; raises EngineUnavailable where the last is missing."""
    try:
        return joiner.generation()
    except ValueError as error:
        raise EngineUnavailable(f"the server's answer broke off: {error}") from None
