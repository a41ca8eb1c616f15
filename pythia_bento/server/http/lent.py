"""Memory that goes out without a copy, though it is somebody else's soon.

A server's transport keeps what the system does not take yet, and sends it later: until then such
memory must stay as it is. In an ASGI application nothing tells when that is.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from starlette.types import Scope

EXTENSION = "pythia.lent"


class Lending:
    """A context in which a connection may be given memory to send, and behind which it has none.

    Within it ``send`` returns when all that was sent before has left. What has not at its end
    never will: the connection is ended.
    """

    def __init__(self, transport: Any) -> None:
        """``transport`` is asyncio's, without TLS."""
        self._transport = transport

    def __enter__(self) -> None:
        self._low, self._high = self._transport.get_write_buffer_limits()
        if not self._transport.is_closing():
            self._transport.set_write_buffer_limits(high=0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        elif not self._transport.is_closing():
            self._transport.set_write_buffer_limits(high=self._high, low=self._low)


def offer(scope: Any, transport: Any) -> None:
    """Let whoever answers a request lend memory to its connection; with TLS it is copied anyway."""
    if transport.get_extra_info("sslcontext") is None:
        scope["extensions"] = {**scope.get("extensions", {}), EXTENSION: Lending(transport)}


def lending_of(scope: Scope) -> Lending | None:
    """None where what is sent has to be its receiver's own."""
    found: Lending | None = scope.get("extensions", {}).get(EXTENSION)
    return found
