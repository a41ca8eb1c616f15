"""What samples of a GPU's clocks add up to."""

from __future__ import annotations

import pynvml
import pytest

from bench.common.clocks import Clocks


def test_without_samples_nothing_is_said() -> None:
    assert Clocks().summary() == {}


@pytest.mark.parametrize(
    ("reasons", "named"),
    [
        (pynvml.nvmlClocksEventReasonGpuIdle, []),
        (pynvml.nvmlClocksEventReasonSwPowerCap, ["power"]),
        (
            pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksEventReasonHwThermalSlowdown,
            ["power", "heat"],
        ),
    ],
)
def test_the_middle_clock_the_most_power_and_what_slowed(reasons: int, named: list[str]) -> None:
    found = Clocks([1980, 1650, 1700], [300.0, 681.2, 600.0], reasons).summary()
    assert found == {"sm_mhz": 1700, "watts": 681, "slowed_by": named}
