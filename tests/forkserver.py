"""Processes that start at once: what takes seconds is imported in one process and forked.

multiprocessing has one such process for all that a pytest process starts, so its list is here.
"""

from __future__ import annotations

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "tests.hub.child",
        "tests.integration.sweep_child",
        "tests.unit.runtime.toy_runner",
        "pythia_bento.runtime.process",
        "tests.frozen",
    ]
)
