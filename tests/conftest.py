"""For all tests: one thread, no settings from outside, no time limits in property tests."""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest

# Before anything imports torch. Many small tests, and servers beside them, share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
for name in [name for name in os.environ if name.startswith("PYTHIA_")]:
    del os.environ[name]

hypothesis.settings.register_profile("pythia", deadline=None)
hypothesis.settings.load_profile("pythia")


@pytest.hookimpl(trylast=True)  # after the marks of tests/gpu
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where no GPU is, its tests are reported as skipped, never passed."""
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


class Deselected:
    """Says how many tests were left out. pytest-xdist's workers know, and nobody asks them."""

    count = 0

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.count += len(items)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["deselected"] = self.count

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.count = getattr(node, "workeroutput", {}).get("deselected", self.count)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.count:
            terminalreporter.write_line(f"{self.count} tests were deselected and did not run")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Deselected())
