"""Pytest plugin: tests that cannot run here are left out, and lines say how many and why.

A test that misses something neither fails nor passes nor is skipped: it is deselected, as ``-m``
does, whether it ``needs`` a command, a package or a GPU. ``--may-leave-out gpu,long`` makes a run
fail that leaves out tests for any other reason, or skips one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from tests.needs import NEEDS, is_here

MISSING = pytest.StashKey[tuple[str, ...]]()
# What -m leaves out is told by these; the rest of a run of one of them is UNMARKED.
MARKERS = ("gpu", "long")
UNMARKED = "unmarked"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--may-leave-out",
        metavar="REASONS",
        help=f"fail if tests are left out for others: {', '.join((*MARKERS, UNMARKED))}, or needs",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): left out where one of them is missing")
    config.pluginmanager.register(LeftOut(config.getoption("may_leave_out")))


@pytest.hookimpl(trylast=True)  # after -m, and after the marks of tests/gpu
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.stash[MISSING] = tuple(sorted(name for name in needs(item) if not is_here(name)))
    if left_out := [item for item in items if item.stash[MISSING]]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.stash[MISSING]]


def needs(item: pytest.Item) -> set[str]:
    """All names of its ``needs`` marks; ``gpu`` is a mark of its own, so that -m can choose it."""
    names = {name for mark in item.iter_markers("needs") for name in mark.args}
    if unknown := names - NEEDS.keys():
        what = " and ".join(sorted(unknown))
        raise pytest.UsageError(f"{item.nodeid} needs {what}, which tests/needs.py does not know")
    return names | ({"gpu"} if item.get_closest_marker("gpu") else set())


class LeftOut:
    """Counts, also for pytest-xdist's workers, who know and are not asked by anybody."""

    def __init__(self, allowed: str | None) -> None:
        self._allowed = None if allowed is None else set(allowed.split(","))
        self.found: Counter[tuple[str, str]] = Counter()  # by reason and file

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        self.found.update((reason(item), item.nodeid.split("::")[0]) for item in items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        if output := getattr(node, "workeroutput", {}).get("left_out"):  # equal for all workers
            self.found = Counter({(reason, file): count for reason, file, count in output})

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            rows = [(*key, count) for key, count in self.found.items()]
            session.config.workeroutput["left_out"] = rows
        elif self._forbidden(session.config) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        for reason in sorted({reason for reason, _ in self.found}):
            terminalreporter.write_line(self._line(reason))
        if forbidden := self._forbidden(config):
            terminalreporter.write_line(f"not allowed here: {'; '.join(forbidden)}", red=True)

    def _line(self, reason: str) -> str:
        files = {file: count for (why, file), count in self.found.items() if why == reason}
        where = ", ".join(sorted(files)) if len(files) <= 4 else f"{len(files)} files"
        what = reason if reason in (*MARKERS, UNMARKED) else f"{reason}, which is not here"
        return f"left out: {sum(files.values())} tests, {what} ({where})"

    def _forbidden(self, config: pytest.Config) -> list[str]:
        """What ``--may-leave-out`` does not name."""
        if self._allowed is None:
            return []
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        skipped = len(reporter.stats.get("skipped", ()))
        reasons = sorted({reason for reason, _ in self.found} - self._allowed)
        return [*(f"left out: {reason}" for reason in reasons)] + (
            [f"{skipped} skipped"] if skipped else []
        )


def reason(item: pytest.Item) -> str:
    """``needs chromium``, or the marker by which -m has left it out."""
    if missing := item.stash.get(MISSING, ()):
        return "gpu" if "gpu" in missing else f"needs {' and '.join(missing)}"
    return next((name for name in MARKERS if item.get_closest_marker(name)), UNMARKED)
