"""Where BentoML's supervisor lets the services of a Bento listen."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from pythia_bento.server.bentoml.internals import CONTAINER, internal

ADDRESSES = f"{CONTAINER}.remote_runner_mapping"


def address_of(service: str) -> SplitResult | None:
    """The URL of a service by its name; None where there is no supervisor.

    ``file`` is a socket that the supervisor made for the other services of the Bento alone, and so
    is ``tcp``, where there are no sockets of that kind. ``http`` and ``https`` are ports for
    everybody, also where one service of a Bento is served alone, which BentoML takes for a
    dependency. Raises MissingInternal.
    """
    url = internal(ADDRESSES).get().get(service)
    return None if url is None else urlsplit(url)


def is_private(service: str) -> bool:
    """Whether only services of the same Bento can reach it; raises MissingInternal."""
    address = address_of(service)
    return address is not None and address.scheme in ("file", "tcp")
