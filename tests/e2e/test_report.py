"""The report of ``pythia-bento plot`` in a real browser, from the disk and without any server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Keys

from pythia_bento.sweep.curves import read_chart
from pythia_bento.sweep.plot import write
from tests.e2e.browser import Browser
from tests.sweep_tables import STEPS, put, put_all, row

pytestmark = pytest.mark.needs("chromium", "chromedriver")

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def page(window: Browser, tmp_path: Path) -> Iterator[Browser]:
    """Three items of one model. Nothing was loaded and nothing refused in the end."""
    show(window, put_all(tmp_path), "logprob")
    yield window
    assert window.console() == []
    assert window.hosts() == set()


def show(window: Browser, folder: Path, metric: str) -> None:
    write(read_chart(folder, metric), folder / "report.html")
    window.open((folder / "report.html").as_uri())


def corners(page: Browser, path: int) -> list[tuple[float, float]]:
    """Where the points of a curve lie, in units of the drawing."""
    line = page.all(".curve")[path].get_attribute("d")
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", line)]


def test_every_item_has_a_curve_with_a_point_for_each_step(page: Browser) -> None:
    assert len(page.all(".curve")) == 4
    assert len(page.all(".curve.mean")) == 1
    assert {len(corners(page, index)) for index in range(4)} == {len(STEPS)}
    assert [one.text for one in page.all("#legend button")] == [
        *("text 0", "text 1", "text 2", "pythia-14m, all items")
    ]


def test_steps_have_a_logarithmic_axis(page: Browser) -> None:
    x = dict(zip(STEPS, (x for x, _ in corners(page, 0)), strict=True))
    decade = x[1] - x[0]
    assert (x[512] - x[16]) / decade == pytest.approx(1.50515, abs=0.01)
    labels = [label.text for label in page.all("svg text")]
    assert {"0", "1", "10", "100,000", "training step"} <= set(labels)


def test_the_pointer_reads_the_nearest_value(page: Browser) -> None:
    chart = page("#chart")
    x, y = corners(page, 2)[1]
    scale = chart.rect["width"] / 960
    offset = round((x - 480) * scale), round((y - 240) * scale)
    ActionChains(page.driver).move_to_element_with_offset(chart, *offset).perform()
    assert page("#reading").text == "text 2: step 1, -1.5"
    assert len(page.all(".curve.on")) == 1
    ActionChains(page.driver).move_to_element(page("h1")).perform()
    assert page("#reading").text == ""


def test_the_keyboard_reads_every_value(page: Browser) -> None:
    chart = page("#chart")
    read = []
    for key in (
        Keys.ARROW_RIGHT,
        Keys.ARROW_RIGHT,
        Keys.ARROW_UP,
        Keys.ARROW_LEFT,
        Keys.ARROW_LEFT,
    ):
        chart.send_keys(key)
        read.append(page("#reading").text)
    assert read == [
        "pythia-14m, all items: step 0, -2",
        "pythia-14m, all items: step 1, -1",
        "text 2: step 1, -1.5",
        "text 2: step 0, -3",
        "text 2: step 0, -3",
    ]
    chart.send_keys(Keys.ESCAPE)
    assert page("#reading").text == ""


def test_the_legend_chooses_a_curve(page: Browser) -> None:
    page.all("#legend button")[0].click()
    assert page("#reading").text.startswith("text 0: step 143,000, ")
    assert page.all("#legend button.on") == [page.all("#legend button")[0]]


def test_means_are_a_table_too(page: Browser) -> None:
    page("summary").click()
    rows = [
        [cell.text for cell in line.find_elements("css selector", "th, td")]
        for line in page.all("tbody tr")
    ]
    assert rows[:2] == [["0", "-2"], ["1", "-1"]]
    assert [int(line[0]) for line in rows] == list(STEPS)


def test_a_narrow_window_does_not_scroll_sideways(page: Browser) -> None:
    page.driver.set_window_size(390, 800)
    try:
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.driver.set_window_size(1200, 900)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system(page: Browser, scheme: str) -> None:
    script = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    with page.preferring(scheme):
        colours = page.run(script)
    page_level, text_level = (sum(map(int, re.findall(r"\d+", one)[:3])) for one in colours)
    assert (page_level < text_level) == (scheme == "dark")


def test_texts_stay_texts(window: Browser, tmp_path: Path) -> None:
    put(tmp_path, "m", 1, [row(0, id=HOSTILE)])
    show(window, tmp_path, "rank")
    assert window.all("#legend button")[0].text == HOSTILE
    assert window.all("img") == []
    assert window.console() == []


def test_one_value_alone_can_be_drawn(window: Browser, tmp_path: Path) -> None:
    put(tmp_path, "m", 64, [row(0, ranks=[1])])
    show(window, tmp_path, "rank")
    assert corners(window, 0) == [(505.0, 222.5)]
    assert window.console() == []
