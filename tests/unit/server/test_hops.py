"""How many modules a completion passes on its way from the first layer to the forward pass."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

import pythia_bento
from pythia_bento.server.bentoml.access_log import AccessLog
from pythia_bento.server.bentoml.tracing import Calls
from tests.unit.conftest import app_of
from tests.unit.engine.toy import ToyModel
from tests.unit.runtime.toy_runner import settled, toy_runner

PACKAGE = str(Path(pythia_bento.__file__).parent)
MOST = 30


class Way:
    """Modules of the package whose functions ran, in order, up to the first forward pass."""

    def __init__(self) -> None:
        self.modules: dict[str, None] = {}
        self.is_over = True

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or self.is_over:
            return
        if not self.modules and threading.current_thread() is not threading.main_thread():
            return  # the engine's, which still ends the one before
        self.is_over = code is ToyModel.forward.__code__
        if code.co_filename.startswith(PACKAGE):
            self.modules[code.co_filename.removeprefix(PACKAGE)] = None

    def begin(self) -> None:
        self.modules.clear()
        self.is_over = False


@contextmanager
def watched() -> Iterator[Way]:
    """For this thread, and those that are started inside."""
    way = Way()
    threading.setprofile(way)
    sys.setprofile(way)
    try:
        yield way
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


async def test_a_completion_passes_few_modules() -> None:
    with watched() as way, toy_runner() as runner:
        app = Calls(AccessLog(app_of(runner)))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for _ in range(2):  # the first one finds caches empty
                way.begin()
                body = {"prompt": "the end", "max_tokens": 2}
                answer = await client.post("/v1/completions", json=body)
                assert answer.status_code == 200
                assert way.is_over
                settled(runner)  # the engine's thread has nothing left that the next way would have
    first, *_, last = way.modules
    assert first == "/server/bentoml/tracing.py"
    assert last == "/executor/input_batch.py"
    assert len(way.modules) <= MOST, "\n".join(way.modules)
