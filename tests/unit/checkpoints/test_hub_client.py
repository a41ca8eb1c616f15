"""How long a portion of a download may take."""

from __future__ import annotations

import queue
from types import SimpleNamespace

import pytest

from pythia_bento.checkpoints import hub_client
from pythia_bento.checkpoints.hub_client import PORTION, PORTION_SECONDS, Pace
from pythia_bento.errors import CheckpointError


class Line:
    """Gives pieces of a size, each after so many seconds of a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.size, self.seconds = 0.0, 0, 0.0
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep)
        monkeypatch.setattr(hub_client, "time", clock)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def get(self, timeout: float) -> bytes:
        self.now += min(self.seconds, timeout)
        if self.seconds > timeout:
            raise queue.Empty
        return bytes(self.size)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(monkeypatch)


def arrived(line: Line, most: int = 400) -> int:
    """Pieces until the pace gives up; ``most`` if it does not."""
    pace = Pace("the file")
    for count in range(most):
        try:
            pace.wait(line)  # type: ignore[arg-type]
        except CheckpointError as error:
            assert error.message.startswith("the hub sends the file slower than 1 MiB in 60 s")
            return count
    return most


def test_a_slow_line_that_is_fast_enough_is_never_given_up(line: Line) -> None:
    line.size, line.seconds = PORTION // 8, PORTION_SECONDS / 9
    assert arrived(line) == 400
    assert line.now > 30 * PORTION_SECONDS


def test_a_slower_one_is_given_up_in_its_first_portion(line: Line) -> None:
    line.size, line.seconds = PORTION // 8, PORTION_SECONDS / 7.5
    assert arrived(line) == 7
    assert line.now == pytest.approx(PORTION_SECONDS)


def test_bytes_one_by_one_are_given_up_as_soon(line: Line) -> None:
    line.size, line.seconds = 1, 1.0
    assert arrived(line) == PORTION_SECONDS


def test_time_between_two_tries_does_not_count(line: Line) -> None:
    line.size, line.seconds = PORTION // 4, 1.0
    pace = Pace("the file")
    for _ in range(40):
        pace.wait(line)  # type: ignore[arg-type]
        line.now += 300.0


def test_waits_that_a_hub_asks_for_come_to_an_end(line: Line) -> None:
    pace = Pace("the file")
    for _ in range(12):
        pace.sleep(300.0)
    with pytest.raises(CheckpointError, match="more than 3600 s of waits for the file"):
        pace.sleep(1.0)
    assert line.now == 3600.0
