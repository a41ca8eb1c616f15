"""The process that starts workers has looked at all it can before torch is imported."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import sys
import pythia_bento.service
from pythia_bento.runtime.preflight import check_loadable
from pythia_bento.settings import Settings
check_loadable(Settings(model="bundled@step64"))
print("torch" in sys.modules)
"""


def test_the_service_and_its_checks_do_without_torch() -> None:
    run = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr
