from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.at_once import shared
from tests.e2e.faulty import faulty
from tests.e2e.serving import BENTOML, LOGS, Server, long_work, serve
from tests.fuzz.http import SETTINGS

if TYPE_CHECKING:  # it brings selenium
    from tests.e2e.browser import Browser

TWO_GB = 0.0025  # two steps of 1.14 MB


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BentoML's home for this session."""
    return tmp_path_factory.mktemp("bentoml")


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[Server]:
    """The bundled checkpoint, served from the working tree as it is without settings."""
    with serve(home, bentoml=[BENTOML], is_measured=True) as server:
        yield server


@pytest.fixture(scope="session")
def guarded(home: Path) -> Iterator[Server]:
    """Another one, that asks for the key ``KEY`` and has small limits."""
    with serve(home, is_measured=True, **SETTINGS) as server:
        yield server


@pytest.fixture(scope="session")
def shelf(home: Path) -> Iterator[Server]:
    """One with room for two steps, so that a sweep has to load them, whose callers give orders."""
    patterns = "bundled@*, pythia-160m@*, someone/tiny@*"
    settings = {"models_gb": TWO_GB, "turn_ms": 5, "manage_models": True}
    with serve(home, is_measured=True, models=patterns, **settings) as server:
        yield server


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``window`` puts what it saves."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all files: it takes seconds to start."""
    from tests.e2e.browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def window(browser: Browser, downloads: Path) -> Browser:
    """A window that knows nothing of what other files did in it."""
    from tests.e2e.browser import WINDOW

    browser.forget()
    browser.driver.set_window_size(*WINDOW)
    browser.download_to(downloads)
    return browser


@pytest.fixture(scope="session")
def commands() -> Path:
    """A folder of ``pythia-bento`` and ``python`` that need not import anything."""
    return shared()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``failing`` looks for the files that switch faults on."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def failing(home: Path, place: Path) -> Iterator[Server]:
    """One whose device fails on demand, and that gives clients four seconds and little memory."""
    settings = {
        **{"request_timeout": 120, "key_requests_per_minute": 600, "drain_seconds": 5},
        **{"client_timeout": 4, "capture_gb": 0.03, "max_capture_bytes": 30_000_000},
    }
    with faulty(home, place, is_measured=True, **settings) as server:
        yield server


@pytest.fixture(autouse=True)
def _healthy_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does to servers: they are ready, blocks are back, and no loop stood still.

    What an event loop computed counts, not how long it took: the machine may have other work.
    """
    sizes = {log: log.stat().st_size for log in LOGS if log.is_file()}
    yield
    for name in {"server", "guarded", "shelf"} & set(request.fixturenames):
        server: Server = request.getfixturevalue(name)
        server.settled()
        assert server.process.poll() is None
    for log in filter(Path.is_file, LOGS):  # one may be a full disk, which has no end
        news = log.read_bytes()[sizes.get(log, 0) :].decode(errors="replace")
        assert not long_work(news), news
