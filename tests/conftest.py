"""For all tests: one thread, no settings from outside, the same examples in each run."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator

import hypothesis
import pytest

pytest_plugins = ["tests.left_out", "tests.pauses", "tests.sharing", "pytester"]

# Before anything imports torch. Many small tests, and servers beside them, share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
for name in [name for name in os.environ if name.startswith("PYTHIA_")]:
    del os.environ[name]

# As in CI: what new examples would find is for tests/fuzz, and no check is of the machine's speed.
hypothesis.settings.register_profile("pythia", hypothesis.settings.get_profile("ci"))
hypothesis.settings.load_profile("pythia")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """A million objects of what is imported meanwhile all stay: there is no garbage to look for."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
