"""What the GPU's clocks and power did while something was measured, read from NVML."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pynvml  # type: ignore[import-untyped]

EVERY_SECONDS = 0.005
SLOWED_BY = {
    "power": pynvml.nvmlClocksEventReasonSwPowerCap
    | pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "heat": pynvml.nvmlClocksEventReasonSwThermalSlowdown
    | pynvml.nvmlClocksEventReasonHwThermalSlowdown,
}


@dataclass(slots=True)
class Clocks:
    """Samples of a run."""

    sm_mhz: list[int] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    reasons: int = 0  # bits of all samples

    def summary(self) -> dict[str, Any]:
        """The median clock, the most power, and what slowed the clocks; empty without samples."""
        if not self.sm_mhz:
            return {}
        return {
            "sm_mhz": int(statistics.median(self.sm_mhz)),
            "watts": round(max(self.watts)),
            "slowed_by": [name for name, bits in SLOWED_BY.items() if self.reasons & bits],
        }


@contextmanager
def watched(index: int = 0) -> Iterator[Clocks]:
    """Samples the device on a thread until the context ends."""
    pynvml.nvmlInit()
    device, clocks, ended = pynvml.nvmlDeviceGetHandleByIndex(index), Clocks(), threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_SECONDS):
            clocks.sm_mhz.append(pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM))
            clocks.watts.append(pynvml.nvmlDeviceGetPowerUsage(device) / 1e3)
            clocks.reasons |= pynvml.nvmlDeviceGetCurrentClocksEventReasons(device)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield clocks
    finally:
        ended.set()
        thread.join()
