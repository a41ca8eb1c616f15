"""Prometheus' own opinion of a metrics page."""

from __future__ import annotations

import subprocess


def check_metrics(page: str) -> None:
    """Fails on pages that Prometheus cannot read, and on names that it advises against."""
    command = ["promtool", "check", "metrics"]
    found = subprocess.run(command, input=page.encode(), capture_output=True)
    said = (found.stdout + found.stderr).decode()
    assert found.returncode == 0 and not said, said
