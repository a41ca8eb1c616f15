from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.serving import MAX_BODY, Server, serve
from tests.fuzz.http import SETTINGS


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BentoML's home for this session."""
    return tmp_path_factory.mktemp("bentoml")


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[Server]:
    """The bundled checkpoint, served from the working tree. One for all tests."""
    with serve(home, max_body_bytes=MAX_BODY) as server:
        yield server


@pytest.fixture(scope="session")
def guarded(home: Path) -> Iterator[Server]:
    """Another one, that asks for the key ``KEY`` and has small limits."""
    with serve(home, **SETTINGS) as server:
        yield server


@pytest.fixture(autouse=True)
def _healthy_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does to the server: it is ready, and all blocks are back."""
    yield
    for name in {"server", "guarded"} & set(request.fixturenames):
        server: Server = request.getfixturevalue(name)
        server.settled()
        assert server.process.poll() is None
