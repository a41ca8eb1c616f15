"""What the playground's address says, what may be taken along, and what its colours mean."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from selenium.webdriver import Keys
from selenium.webdriver.support.select import Select

from tests.e2e.browser import Browser
from tests.e2e.serving import HTTP, Server
from tests.fuzz.http import KEY

pytestmark = pytest.mark.needs("chromium", "chromedriver")

PROMPT = "Once upon a time"
OTHER = "bundled@step256"
FIELDS = {"prompt": PROMPT, "max_tokens": 20, "temperature": 1.5, "logprobs": 4}
_STRENGTHS = """return [...document.querySelectorAll("#tokens .token")]
  .map((token) => Number(token.style.getPropertyValue("--strength")))"""


@pytest.fixture
def page(window: Browser, server: Server) -> Iterator[Browser]:
    """The playground with its example. Nothing was refused to it in the end."""
    fresh(window, f"{server.url}/playground")
    window.wait(lambda: window("#status").text.startswith("An example"))
    yield window
    assert window.hosts() == {server.url.removeprefix("http://")}
    assert window.console() == []


def fresh(window: Browser, url: str) -> None:
    """Not the page that is there, with another part of its address behind the #."""
    window.open("about:blank")
    window.open(url)
    window.console()


def generate(page: Browser, **fields: object) -> None:
    for name, value in {**FIELDS, **fields}.items():
        page.type(f"#{name}", value)
    page("#run").click()
    ended(page)


def ended(page: Browser) -> None:
    page.wait(lambda: "tokens in" in page("#status").text or page("#error").is_displayed())


def text(page: Browser, box: str = "tokens") -> str:
    return str(page.run(f"return document.getElementById('{box}').textContent"))


def said(page: Browser) -> dict[str, str]:
    """By the address."""
    fragment = urlsplit(page.driver.current_url).fragment
    return {name: value for name, [value] in parse_qs(fragment, strict_parsing=True).items()}


def answered(server: Server, **fields: object) -> dict[str, Any]:
    body = {**FIELDS, **fields}
    response = HTTP.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_an_example_is_coloured_at_first(page: Browser) -> None:
    assert "banana" in text(page)
    strengths = page.run(_STRENGTHS)
    assert min(strengths) < 0.01 and max(strengths) == 1
    assert urlsplit(page.driver.current_url).fragment == ""
    assert not page("#take").is_displayed()


def test_a_link_gives_the_text_again_with_the_seed_that_was_drawn(
    page: Browser, server: Server
) -> None:
    Select(page("#beside")).select_by_visible_text(OTHER)
    generate(page, stop="zebra")
    texts, link = [text(page), text(page, "second")], page.driver.current_url
    seed = said(page)["seed"]
    assert page("#seed").get_attribute("value") == "" and f"seed {seed}" in page("#status").text
    fresh(page, link)
    ended(page)
    assert [text(page), text(page, "second")] == texts
    assert page("#seed").get_attribute("value") == seed
    assert page("#stop").get_attribute("value") == "zebra"
    assert "another server" not in page("#status").text
    assert said(page).keys() == {*FIELDS, *("model", "beside", "seed", "stop", "measure")} | {
        *("top_p", "top_k", "fingerprint")
    }


def test_a_link_of_another_server_says_so(page: Browser, server: Server) -> None:
    generate(page, seed=3)
    link = page.driver.current_url
    assert said(page)["fingerprint"] == answered(server, seed=3)["system_fingerprint"]
    fresh(page, link.replace("fingerprint=", "fingerprint=other-"))
    ended(page)
    assert "made by another server" in page("#status").text


def test_a_link_to_what_is_not_served_is_refused(page: Browser, server: Server) -> None:
    fresh(page, f"{server.url}/playground#prompt=a&model=pythia-1b")
    page.wait(page("#error").is_displayed)
    assert page("#error").text == "pythia-1b of the link is not served here"
    page.wait(lambda: page("#status").text.startswith("An example"))


def test_a_key_is_not_in_the_link(window: Browser, guarded: Server) -> None:
    fresh(window, f"{guarded.url}/playground")
    window.wait(lambda: "an API key is required" in window("#model").text)
    window.type("#key", KEY + Keys.TAB)
    window.wait(lambda: window("#status").text.startswith("An example"))
    generate(window)
    assert said(window)["prompt"] == PROMPT
    assert KEY not in window.driver.current_url


def test_two_steps_stand_side_by_side_with_one_seed(page: Browser, server: Server) -> None:
    assert not page("#second").is_displayed()
    Select(page("#beside")).select_by_visible_text(OTHER)
    generate(page, seed=5)
    for box, name, model in (
        ("tokens", "#of-first", "bundled@step3000"),
        ("second", "#of-second", OTHER),
    ):
        [choice] = answered(server, seed=5, model=model)["choices"]
        assert text(page, box) == choice["text"]
        assert page(name).text == model
    boxes = [page(f"#{box}").rect for box in ("tokens", "second")]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]


def test_rank_and_entropy_have_colours_too(page: Browser, server: Server) -> None:
    generate(page, seed=5)
    [choice] = answered(server, seed=5)["choices"]
    own, tops = choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"]
    expected = {
        "surprise": [min(value / math.log(0.0025), 1) for value in own],
        "rank": [place(value, top) for value, top in zip(own, tops, strict=True)],
        "entropy": [min(entropy(top) / 8, 1) for top in tops],
    }
    for measure, strengths in expected.items():
        Select(page("#measure")).select_by_value(measure)
        assert page.run(_STRENGTHS) == pytest.approx(strengths, abs=6e-4), measure
        assert page("#legend").text.split()[0] in ("100", "1", "0")
        assert len(page.all("#legend i")) == 5


def place(own: float, top: dict[str, float]) -> float:
    better = sum(value > own for value in top.values())
    return math.log2(better + 1) / 4 if better < FIELDS["logprobs"] else 1  # type: ignore[operator]


def entropy(top: dict[str, float]) -> float:
    shares = [math.exp(value) for value in top.values()]
    shares.append(max(1 - sum(shares), 0))
    return -sum(share * math.log2(share) for share in shares if share)


def test_tokens_are_copied_with_all_that_is_known_of_them(page: Browser, server: Server) -> None:
    generate(page, seed=5)
    page("#copy-json").click()
    page.wait(lambda: page("#status").text == "tokens copied")
    page("#prompt").clear()
    page("#prompt").send_keys(Keys.CONTROL, "v")
    copied = json.loads(str(page("#prompt").get_attribute("value")))
    told = answered(server, seed=5)
    logprobs = told["choices"][0]["logprobs"]
    assert copied["system_fingerprint"] == told["system_fingerprint"]
    assert copied["request"]["seed"] == 5
    assert [token["logprob"] for token in copied["tokens"]] == logprobs["token_logprobs"]
    assert [token["top_logprobs"] for token in copied["tokens"]] == logprobs["top_logprobs"]


def test_tokens_are_saved_as_a_table(page: Browser, server: Server, downloads: Path) -> None:
    generate(page, seed=5)
    page("#save-csv").click()
    page.wait((downloads / "tokens.csv").exists)
    with (downloads / "tokens.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    [choice] = answered(server, seed=5)["choices"]
    assert [float(row["logprob"]) for row in rows] == choice["logprobs"]["token_logprobs"]
    assert {row["model"] for row in rows} == {"bundled@step3000"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_telephone_the_text_is_in_sight(window: Browser, server: Server, scheme: str) -> None:
    with window.emulating(390, 844, scheme):
        fresh(window, f"{server.url}/playground")
        window.wait(lambda: window("#status").text.startswith("An example"))
        generate(window, seed=5)
        top = window.run("return document.getElementById('tokens').getBoundingClientRect().top")
        assert 0 <= top < 400
        assert window.run("return document.documentElement.scrollWidth") <= 390
