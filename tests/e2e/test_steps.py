"""The page over the steps of training as people use it: a real browser, a real server."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Keys

from tests.e2e.browser import Browser
from tests.e2e.serving import HTTP, Server
from tests.fuzz.http import KEY

pytestmark = pytest.mark.needs("chromium", "chromedriver")

STEPS = [0, 64, 256, 512, 1000, 3000]
TEXT = "Once upon a time, there\nwas a café."

# Counts of points on the page, one for each time that it was changed.
_WATCH = """
window.counts = [];
const curves = document.getElementById("curves");
new MutationObserver(() => counts.push(curves.querySelectorAll(".of-text circle").length))
  .observe(curves, {childList: true});
"""
_STOP_AT_FIRST = """
const curves = document.getElementById("curves"), stop = document.getElementById("stop-button");
new MutationObserver(() => curves.querySelector(".of-text circle") && stop.click())
  .observe(curves, {childList: true});
"""
_SURPRISES = """return [...document.querySelectorAll(".token")]
  .map((token) => token.style.getPropertyValue("--strength"))"""
_PAUSE_AT = """
const at = document.getElementById("at"), play = document.getElementById("play");
new MutationObserver(() => parseInt(at.textContent) === arguments[0] && play.click())
  .observe(at, {childList: true});
"""
_SEEN = """
window.seen = [];
const at = document.getElementById("at");
new MutationObserver(() => seen.push(parseInt(at.textContent))).observe(at, {childList: true});
"""


@pytest.fixture
def page(window: Browser, server: Server) -> Iterator[Browser]:
    """Fresh, of a server without keys. Nothing was refused to it in the end."""
    window.open(f"{server.url}/steps")
    window.wait(lambda: "6 steps of bundled, 0 to 3000" in window("#model").text)
    window.console()
    yield window
    assert window.hosts() == {server.url.removeprefix("http://")}
    assert window.console() == []


def score(page: Browser, text: str = TEXT) -> None:
    page.type("#text", text)
    page("#run").click()
    page.wait(lambda: page("#status").text == "6 of 6 steps" or page("#error").is_displayed())


def told(server: Server, text: str = TEXT) -> list[dict[str, Any]]:
    """The rows that the page has asked for, in the order of training."""
    body = {"items": [{"prompt": text}], "task": {"type": "score", "tokens": True}}
    answer = HTTP.post(f"{server.url}/v1/sweep", json=body, timeout=60)
    events = [json.loads(line) for line in answer.text.splitlines()]
    return [event for event in events if event["event"] == "row"]


def surprises(page: Browser) -> list[float]:
    return [float(value) for value in page.run(_SURPRISES)]


def expected_surprises(row: dict[str, Any]) -> list[float]:
    shares = [min(token["logprob"] / math.log(0.0025), 1) for token in row["tokens"]]
    return pytest.approx([0, *shares], abs=6e-4)


def step_of(page: Browser) -> int:
    return int(page("#at").text.partition(",")[0])


def test_a_text_has_a_point_for_each_step(page: Browser, server: Server) -> None:
    page.run(_WATCH)
    score(page)
    assert len(page.all("#curves .of-text circle")) == len(STEPS)
    counts = page.run("return counts")
    assert counts == sorted(counts) and set(counts) >= {1, 6}  # what arrives is shown at once
    assert "over 6 steps" in page("#curves").get_attribute("aria-label")
    seen = "return [...document.querySelectorAll('.token:not(.unseen)')].map(t => t.textContent)"
    assert "".join(page.run(seen)) == TEXT
    rows = page.all("#table tbody tr")
    cells = [
        [cell.get_attribute("textContent") for cell in row.find_elements("tag name", "td")]
        for row in rows
    ]
    assert [int(cell[0]) for cell in cells] == STEPS
    means = [row["logprob"] / row["num_tokens"] for row in told(server)]
    assert [float(cell[2]) for cell in cells] == pytest.approx(means, abs=6e-5)


def test_tokens_have_the_colours_of_the_step_that_the_slider_is_at(
    page: Browser, server: Server
) -> None:
    score(page)
    rows = told(server)
    assert step_of(page) == 3000 and surprises(page) == expected_surprises(rows[5])
    slider = page("#step")
    slider.send_keys(Keys.HOME)
    assert step_of(page) == 0 and surprises(page) == expected_surprises(rows[0])
    for index in (1, 2):
        slider.send_keys(Keys.ARROW_RIGHT)
        assert step_of(page) == STEPS[index] and surprises(page) == expected_surprises(rows[index])
    slider.send_keys(Keys.ARROW_LEFT)
    assert step_of(page) == 64
    assert slider.get_attribute("aria-valuetext").startswith("step 64, 0.134 billion tokens seen")
    width = slider.rect["width"]
    ActionChains(page.driver).move_to_element(slider).click_and_hold().move_by_offset(
        int(width / 2) - 4, 0
    ).release().perform()
    assert step_of(page) == 3000


def test_keys_work_wherever_nothing_is_typed(page: Browser) -> None:
    score(page)
    page("#save").send_keys(Keys.ARROW_LEFT)
    assert step_of(page) == 1000
    page("#text").send_keys(Keys.ARROW_LEFT)
    assert step_of(page) == 1000
    page("#text").send_keys(Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: page("#status").text == "6 of 6 steps" and step_of(page) == 3000)


@pytest.mark.parametrize("by", ["pointer", "keyboard"])
def test_a_token_has_a_curve_of_its_own(page: Browser, server: Server, by: str) -> None:
    score(page)
    assert page.all("#curves .of-token circle") == []
    if by == "pointer":
        ActionChains(page.driver).move_to_element(page.all(".token")[2]).perform()
    else:
        page("#tokens").send_keys(Keys.ARROW_RIGHT)
        for _ in range(2):
            page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.wait(page("#tooltip").is_displayed)
    assert len(page.all("#curves .of-token circle")) == len(STEPS)
    token = told(server)[5]["tokens"][1]
    assert f"log-probability {token['logprob']:.4f}, rank {token['rank']}" in page("#tooltip").text
    assert page("#token-name").text == f"token {page('#tooltip strong').text}"


def test_how_the_bundled_model_was_trained_is_a_curve_too(page: Browser, server: Server) -> None:
    told = HTTP.get(f"{server.url}/playground/training.json").json()
    page.wait(lambda: page("#curves .of-training").get_attribute("points"))
    points = str(page("#curves .of-training").get_attribute("points")).split()
    assert len(points) == len(told) and page("#training-key").is_displayed()
    score(page)
    assert len(str(page("#curves .of-training").get_attribute("points")).split()) == len(told)


def test_it_plays_through_all_steps(page: Browser) -> None:
    score(page)
    page.run(_SEEN)
    page("#play").click()
    page.wait(lambda: page("#play").text == "Play" and step_of(page) == 3000)
    assert page.run("return seen") == STEPS


def test_the_pause_button_stops_it(page: Browser) -> None:
    score(page)
    page.run(_SEEN)
    page.run(_PAUSE_AT, 256)
    page("#play").click()
    page.wait(lambda: step_of(page) == 256 and page("#play").text == "Play")
    assert page.run("return seen") == STEPS[:3]
    page("#step").send_keys(Keys.HOME)
    assert step_of(page) == 0


def test_everything_is_saved_as_csv(page: Browser, server: Server, downloads: Path) -> None:
    score(page)
    page("#save").click()
    file = downloads / "bundled-steps.csv"
    page.wait(file.exists)
    with file.open(newline="") as lines:
        saved = list(csv.DictReader(lines))
    rows = told(server)
    expected = [
        (f"bundled@step{step}", str(step), token["id"], token["logprob"], token["rank"])
        for step, row in zip(STEPS, rows, strict=True)
        for token in row["tokens"]
    ]
    assert [
        (one["model"], one["step"], int(one["id"]), float(one["logprob"]), int(one["rank"]))
        for one in saved
    ] == expected
    names = [one["text"] for one in saved if one["step"] == "0"]
    text = "".join(name for name in names if not name.startswith("bytes:"))
    assert TEXT.endswith(text) and "," in text and "\n" in text
    assert "bytes:\\xc3" in names  # a part of a character


def test_escape_stops_and_what_arrived_stays(page: Browser, server: Server) -> None:
    page.run(_STOP_AT_FIRST)
    page.type("#text", TEXT)
    page("#run").click()
    page.wait(lambda: "stopped" in page("#status").text)
    count = len(page.all("#curves .of-text circle"))
    assert count >= 1 and page("#status").text == f"{count} steps, stopped"
    assert page("#run").is_enabled() and not page("#stop-button").is_enabled()
    server.settled()


def test_errors_are_sentences(page: Browser) -> None:
    score(page, "")
    assert "prompt is empty" in page("#error").text
    page.run("document.getElementById('text').value = 'a b '.repeat(400)")
    page("#run").click()
    page.wait(lambda: "context is 512 tokens" in page("#error").text)
    # A refusal stands in the console too.
    assert all("400 (Bad Request)" in line for line in page.console())
    score(page)
    assert not page("#error").is_displayed()


def test_the_same_request_from_a_shell(page: Browser) -> None:
    page.type("#text", "it's")
    shown = page("#curl").get_attribute("textContent")
    assert "/v1/sweep" in shown and "it'\\''s" in shown
    assert '"steps":"all","task":{"type":"score","tokens":true}' in shown


def test_some_steps(page: Browser) -> None:
    page("#steps option[value='log']").click()
    page("#run").click()
    page.wait(lambda: page("#status").text == "5 of 5 steps")
    assert step_of(page) == 1000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen(page: Browser, scheme: str) -> None:
    with page.emulating(width=390, height=800, scheme=scheme):
        score(page)
        assert page.run("return document.documentElement.scrollWidth") == 390
        svg = page("#curves").rect
        assert svg["x"] >= 0 and svg["x"] + svg["width"] <= 390
        assert len(page.all("#curves .of-text circle")) == len(STEPS)
        colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        ink, paper = (
            sum(int(part) for part in rgb.strip("rgb()").split(",")) for rgb in page.run(colours)
        )
        assert (ink > paper) is (scheme == "dark")


def test_everything_that_can_be_used_has_a_name(page: Browser) -> None:
    for element in page.all("button, input, select, textarea, [role=listbox], [role=img], a"):
        if element.is_displayed():
            assert element.accessible_name, element.get_attribute("outerHTML")


def test_a_server_with_keys_asks_for_one(window: Browser, guarded: Server) -> None:
    window.open(f"{guarded.url}/steps")
    window.wait(lambda: "an API key is required" in window("#model").text)
    assert not window("#run").is_enabled()
    window.type("#key", KEY + Keys.TAB)
    window.wait(lambda: "6 steps of bundled" in window("#model").text)
    score(window, "the end")
    assert window("#status").text == "6 of 6 steps"
    assert KEY not in window("#curl").get_attribute("textContent")
    stored = "return [document.cookie, localStorage.length, sessionStorage.length]"
    assert window.run(stored) == ["", 0, 0]
    window.console()


@pytest.mark.parametrize("path", ["/", "/playground"])
def test_other_pages_lead_there(window: Browser, server: Server, path: str) -> None:
    window.open(server.url + path)
    window.wait(lambda: window.all("a[href$='steps']"))
    link = window("a[href$='steps']").get_attribute("href")
    assert link == f"{server.url}/steps"
    window.open(link)
    window.wait(lambda: window.all("#curves"))
