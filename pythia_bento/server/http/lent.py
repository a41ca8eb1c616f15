"""Memory that goes out without a copy, though it is somebody else's soon.

A server's transport keeps what the system does not take yet, and sends it later: until then such
memory must stay as it is. In an ASGI application nothing tells when that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from starlette.types import Scope

EXTENSION = "pythia.lent"


@contextmanager
def lending(transport: Any) -> Iterator[None]:
    """A connection may be given memory to send in here, and has none behind it.

    ``transport`` is asyncio's, without TLS. ``send`` returns when all that was sent before is out.
    What has not at the end never will: the connection is ended.
    """
    low, high = transport.get_write_buffer_limits()
    if not transport.is_closing():
        transport.set_write_buffer_limits(high=0)
    try:
        yield
    finally:
        if transport.get_write_buffer_size():
            transport.abort()
        elif not transport.is_closing():
            transport.set_write_buffer_limits(high=high, low=low)


def offer(scope: Any, transport: Any) -> None:
    """Let whoever answers a request lend memory to its connection; with TLS it is copied anyway."""
    if transport.get_extra_info("sslcontext") is None:
        scope["extensions"] = {**scope.get("extensions", {}), EXTENSION: lending(transport)}


def lending_of(scope: Scope) -> AbstractContextManager[None] | None:
    """None where what is sent has to be its receiver's own."""
    found: AbstractContextManager[None] | None = scope.get("extensions", {}).get(EXTENSION)
    return found
