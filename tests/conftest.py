"""For all tests: one thread, no settings from outside, no time limits in property tests."""

from __future__ import annotations

import os

import hypothesis

pytest_plugins = ["tests.left_out", "tests.sharing", "pytester"]

# Before anything imports torch. Many small tests, and servers beside them, share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
for name in [name for name in os.environ if name.startswith("PYTHIA_")]:
    del os.environ[name]

hypothesis.settings.register_profile("pythia", deadline=None)
hypothesis.settings.load_profile("pythia")
