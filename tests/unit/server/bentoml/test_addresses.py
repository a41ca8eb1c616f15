"""Ports for everybody, and sockets for the services of one Bento."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer

from pythia_bento.server.bentoml.addresses import address_of, is_private


@pytest.fixture(autouse=True)
def _mapping() -> Iterator[None]:
    yield
    BentoMLContainer.remote_runner_mapping.reset()


@pytest.mark.parametrize(
    ("url", "port", "private"),
    [
        ("file:///tmp/bentoml-uds-x/1.sock", None, True),
        ("tcp://127.0.0.1:4000", 4000, True),
        ("http://localhost:3000", 3000, False),
        ("https://0.0.0.0:3000", 3000, False),
    ],
)
def test_only_the_supervisors_own_sockets_are_private(
    url: str, port: int | None, private: bool
) -> None:
    BentoMLContainer.remote_runner_mapping.set({"pythia": url})
    address = address_of("pythia")
    assert address is not None and address.port == port
    assert is_private("pythia") is private


def test_without_a_supervisor_nothing_is_private() -> None:
    assert address_of("pythia") is None
    assert not is_private("pythia")
