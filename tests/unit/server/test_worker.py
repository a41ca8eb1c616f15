"""A worker that cannot start says why in one line, and ends."""

from __future__ import annotations

import subprocess
import sys

# After its imports, so that what needs memory is the start alone.
WITHOUT_MEMORY = """
import asyncio, resource
from pathlib import Path
from pythia_bento.runtime.loading import load_engine
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.worker import Worker
from pythia_bento.settings import Settings

settings = Settings(model="bundled", device="cpu", capture_gb=64, grpc_port=0)
worker = Worker(settings, AccessControl.from_settings(settings), [])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 8 * 2**30, resource.RLIM_INFINITY))
asyncio.run(worker.start())
"""


def test_too_little_memory_is_one_line() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "pythia-bento: there is too little memory to start" in run.stderr.splitlines()[-1]
