"""Pytest plugin: ``--pauses SEED`` stops threads for a while, as a busy machine does.

An event loop stops before a callback, an engine's thread before it takes orders or makes a step,
another thread before its work. All the others go on meanwhile, which is what a test must stand.
What is drawn depends on the seed and on the test; which callback it meets, on the threads too.
"""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import thread as thread_pool
from typing import Any

import pytest

SECONDS = (0.2, 0.5)
# The n-th place that a thread of a kind comes to is one to stop at with this chance over n, and
# with at most MOST: the same number of stops, more or less, in each decade of n.
OFTEN, MOST = 1.0, 0.1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pauses", metavar="SEED", help="stop threads for up to half a second")
    parser.addoption(
        "--pauses-often", type=float, default=OFTEN, metavar="TIMES", help=f"{OFTEN:g} by default"
    )


def pytest_configure(config: pytest.Config) -> None:
    if (seed := config.getoption("pauses")) is not None:
        pauses = Pauses(seed, config.getoption("pauses_often"))
        config.pluginmanager.register(pauses, "pauses")
        pauses.install()


class Pauses:
    """Draws where threads stop. What it replaces stays replaced until the process ends."""

    def __init__(self, seed: str, often: float) -> None:
        self._seed, self._often = seed, often
        self._lock = threading.Lock()
        self._test = ""
        self._begin("")

    def install(self) -> None:
        """Have the threads of this process ask whether to stop."""
        # Imported here: pytest-cov is to see them imported.
        from pythia_bento.engine.engine import Engine
        from pythia_bento.runtime.thread import EngineThread

        self._before(asyncio.Handle, "_run", "callback")
        self._before(EngineThread, "_follow_orders", "orders")
        self._before(EngineThread, "_deliver", "delivery")
        self._before(Engine, "step", "step")
        self._before(threading.Thread, "run", "thread")
        self._before(thread_pool._WorkItem, "run", "work")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._begin(item.nodeid)
        return (yield)

    def _begin(self, test: str) -> None:
        with self._lock:
            self._test = test
            self._counts: dict[str, int] = {}
            self._draws: dict[str, random.Random] = {}

    def _before(self, kind: type, name: str, place: str) -> None:
        method: Callable[..., Any] = getattr(kind, name)

        @functools.wraps(method)
        def paused(*args: Any, **kwargs: Any) -> Any:
            time.sleep(self._seconds(place))
            return method(*args, **kwargs)

        setattr(kind, name, paused)

    def _seconds(self, place: str) -> float:
        with self._lock:
            count = self._counts[place] = self._counts.get(place, 0) + 1
            if place not in self._draws:
                self._draws[place] = random.Random(f"{self._seed} {place} {self._test}")
            draw = self._draws[place]
            return draw.uniform(*SECONDS) if draw.random() < min(MOST, self._often / count) else 0
