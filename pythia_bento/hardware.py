"""How many processors and how much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_number, _sharers = 0, 1  # see ``share``


def share(number: int, sharers: int) -> None:
    """From now on this process is one of ``sharers`` alike, of which it has this ``number``.

    What all may use is shared out among them: 0 of 2 has three of five cores.
    """
    global _number, _sharers
    _number, _sharers = number, sharers


def usable_cores() -> int:
    """Cores this process may use: its affinity, cut by the container's CPU quota, and its share."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = min(len(affinity(0)) if affinity else os.cpu_count() or 1, _quota())
    each, left = divmod(cores, _sharers)
    return max(1, each + (_number < left))


def _quota() -> int:
    """The CPU limit of the control group (version 2, then 1), rounded up; large if none."""
    unlimited = 1 << 16
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            folder = Path("/sys/fs/cgroup/cpu")
            limit = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return unlimited
    if not limit.isdigit() or not period.isdigit() or int(limit) <= 0:
        return unlimited
    return -(-int(limit) // int(period))


def free_memory() -> int:
    """Bytes of main memory that this process may still take."""
    available = (_first_number("/proc/meminfo", "MemAvailable:") or 0) * 1024
    # A container's limit (control groups, version 2) is not in what the system says is available.
    available = min(available, _first_number("/sys/fs/cgroup/memory.max", "max") or available)
    return available // _sharers


def _first_number(path: str, label: str) -> int | None:
    """The number after ``label`` in a file of the kernel's, or the file's only one."""
    try:
        words = Path(path).read_text().split()
    except OSError:
        return None
    after = words[words.index(label) + 1 :] if label in words else words
    return int(after[0]) if after and after[0].isdigit() else None
