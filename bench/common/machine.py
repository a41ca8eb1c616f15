"""What a figure was measured on: machine, versions, and memory bandwidth at that moment."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PROBE_BYTES = 256 << 20  # far more than any cache of last level holds
PROBE_PASSES = 4

PACKAGES = (
    *("pythia-bento", "torch", "triton", "transformers", "bitsandbytes", "bentoml"),
    *("uvicorn", "uvloop", "httptools"),
)


def describe() -> dict[str, Any]:
    """Processor, memory, system and accelerator."""
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "isa": sorted(_flags() & {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"}),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def processor() -> str:
    """The processor's name for a file: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", _cpu_name().lower()).strip("-")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Installed versions, and the commit of this repository where git knows it."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if not shutil.which("git"):
        return found
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(git, capture_output=True, text=True, cwd=Path(__file__).parent)
    return {**found, "commit": done.stdout.strip()} if done.returncode == 0 else found


class BandwidthProbe:
    """Reads main memory with all cores; call it next to every figure."""

    def __init__(self) -> None:
        self._data = torch.ones(PROBE_BYTES // 4)

    def __call__(self) -> float:
        """GB/s, the best of a few passes of some milliseconds each."""
        return max(self._one_pass() for _ in range(PROBE_PASSES))

    def _one_pass(self) -> float:
        start = time.perf_counter()
        self._data.sum()
        return self._data.nbytes / (time.perf_counter() - start) / 1e9


def _cpu_name() -> str:
    pairs = (line.partition(":") for line in _cpuinfo().splitlines())
    parts = {key.strip(): value.strip() for key, _, value in pairs}
    name = parts.get("model name") or platform.processor() or "unknown"
    if "cpu family" in parts:
        name += f", family {parts['cpu family']} model {parts['model']}"
    return name


def _flags() -> set[str]:
    line = next((line for line in _cpuinfo().splitlines() if line.startswith("flags")), ":")
    return set(line.partition(":")[2].split())


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
