"""What a sweep would take: arithmetic on rates that were measured."""

from __future__ import annotations

import pytest

from bench.common import sweep_rates
from pythia_bento import catalog
from pythia_bento.sweep import plan as module
from pythia_bento.sweep.plan import Part, Work, plan, rendered, time_text

GB = 10**9


def test_rates_are_those_of_the_results() -> None:
    found = sweep_rates.rates()
    assert sweep_rates.RATES.read_text() == sweep_rates.json.dumps(found, indent=2) + "\n"
    for device in found.values():
        named = [row["result"] for task in ("score", "generate") for row in device[task].values()]
        assert set(named) <= device["commands"].keys()
        assert all(
            command.startswith("python -m bench.") for command in device["commands"].values()
        )


def test_the_page_says_what_the_plan_says() -> None:
    page = sweep_rates.PAGE.read_text()
    assert len(sweep_rates.BLOCK.findall(page)) == len(sweep_rates.EXAMPLE.findall(page)) == 1
    assert sweep_rates.filled(page) == page


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other figures than those that are measured anew now and then."""
    figures = {"pythia-410m": 400_000.0, "pythia-1b": 200_000.0, "pythia-2.8b": 100_000.0}
    tasks = {model: {"tokens_per_s": rate} for model, rate in figures.items()}
    h200 = {"device": "NVIDIA H200", "load_bytes_per_s": {"value": GB}}
    cpu = {"device": "two cores", "load_bytes_per_s": None}
    known = {"score": tasks, "generate": tasks}
    found = {"h200": h200 | known, "cpu": cpu | {task: {} for task in known}}
    monkeypatch.setattr(module, "_rates", lambda: found)


@pytest.mark.usefixtures("rates")
def test_a_plan_by_hand() -> None:
    part = Part("pythia-1b", 10**9, 2 * GB, checkpoints=10, missing=4)
    found = plan([part], Work(scored=200_000 * 7), "h200", hours=0.01)
    [one] = found.estimates
    assert one.download_bytes == 8 * GB
    assert one.disk_bytes == 20 * GB
    assert one.tokens == 200_000 * 70
    assert one.compute_seconds == pytest.approx(70)
    assert one.load_seconds == pytest.approx(20)
    assert (one.bound, one.measured) == ("compute", ("pythia-1b",))
    assert found.device_hours == pytest.approx(70 / 3600)
    assert found.machines == 2


@pytest.mark.usefixtures("rates")
def test_generation_has_a_rate_of_its_own() -> None:
    part = Part.of("pythia-1b", 1, 1)
    [one] = plan([part], Work(scored=0, generated=2_000_000), "h200").estimates
    assert one.compute_seconds == pytest.approx(10)


@pytest.mark.usefixtures("rates")
def test_a_size_that_nobody_measured_has_the_next_larger_ones_rate() -> None:
    part = Part.of("pythia-1.4b", 154, 0)
    found = plan([part], Work(scored=1000), "h200")
    [one] = found.estimates
    assert one.measured == ("pythia-2.8b",)
    assert one.bound == "loads"
    assert one.download_bytes == 0
    assert one.disk_bytes == 154 * catalog.int8_bytes(catalog.config("pythia-1.4b"))
    assert "pythia-1.4b: by rates of pythia-2.8b, the next larger." in rendered(found)


@pytest.mark.usefixtures("rates")
def test_what_nobody_measured_is_not_made_up() -> None:
    found = plan([Part.of("pythia-2.8b", 1, 1)], Work(scored=1000), "cpu")
    assert (found.device_hours, found.machines) == (None, None)
    [one] = found.estimates
    assert (one.seconds, one.bound) == (None, "not measured")
    assert rendered(found)[-1].endswith("nothing was measured that holds for all of these models.")


@pytest.mark.usefixtures("rates")
def test_a_plan_as_people_read_it() -> None:
    parts = [Part.of("pythia-410m", 154, 154), Part.of("pythia-1b", 154, 100)]
    lines = rendered(plan(parts, Work(scored=128_000), "h200", hours=0.05))
    assert lines[0].split("  ")[0] == "model"
    assert lines[1].split() == [
        *("pythia-410m", "154", "124.8", "GB", "78.5", "GB", "19,712,000"),
        *("78.5", "s", "49.3", "s", "loads"),
    ]
    assert lines[-1] == "4.4 min on one NVIDIA H200; within 3.0 min: 2 of them."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (1.25, "1.2 s"), (600, "10.0 min"), (7200, "2.0 h"), (10**6, "11.6 days")],
)
def test_times(seconds: float | None, text: str) -> None:
    assert time_text(seconds) == text
