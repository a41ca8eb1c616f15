"""Pytest plugin: files that ask for the same process or server go to one worker of pytest-xdist.

What takes seconds to start is started once then, rather than once a worker. The worker that takes
the first file of a group takes all; other files go one by one to whoever is free (`make test`).
"""

from __future__ import annotations

from typing import Any

import pytest

GROUPS = {
    "guarded": {  # the fixture of tests/e2e/conftest.py
        "tests/e2e/test_access.py",
        "tests/e2e/test_fuzz.py",
        "tests/e2e/test_playground.py",
        "tests/e2e/test_secrets.py",
    },
    "forkserver": {  # the process of tests/forkserver.py
        "tests/integration/test_fuzz_computed.py",
        "tests/integration/test_fuzz_documents.py",
        "tests/integration/test_fuzz_hubs.py",
        "tests/integration/test_fuzz_tensors.py",
        "tests/integration/test_pull_hard.py",
        "tests/integration/test_pull_steps.py",
        "tests/unit/runtime/test_process.py",
        "tests/unit/runtime/test_watchdog.py",
    },
}


def group(nodeid: str) -> str:
    """The name of a test's group, or its file."""
    file = nodeid.split("::", 1)[0]
    return next((name for name, files in GROUPS.items() if file in files), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Sharing(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Sharing(config, log)
