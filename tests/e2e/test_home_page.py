"""The page at ``/``: which model answers, and ways on, in a real browser."""

from __future__ import annotations

import pytest
from selenium.webdriver import Keys

from tests.e2e.browser import Browser
from tests.e2e.serving import HTTP, Server
from tests.fuzz.http import KEY

pytestmark = pytest.mark.needs("chromium", "chromedriver")


def opened(window: Browser, server: Server) -> Browser:
    window.open(f"{server.url}/")
    window.wait(lambda: "Asking" not in window("#status").text)
    return window


def test_it_says_what_is_served_and_what_was_compared(window: Browser, server: Server) -> None:
    page = opened(window, server)
    first, *others = HTTP.get(f"{server.url}/v1/models").json()["data"]
    origin = first["provenance"]
    assert page("#status").text == "ready"
    assert page("#model").text.startswith(f"{first['id']} and {len(others)} more")
    assert page("#checks").text.startswith(
        f"{len(origin['files'])} files compared with their sha256"
    )
    assert first["weights"][:12] in page("#checks").text
    assert "the same bits in every batch" in page("#arithmetic").text
    assert page("#fingerprint").text == first["system_fingerprint"]
    assert f"{server.url}/v1/completions" in page("#curl").text
    assert not page("#key").is_displayed()
    assert page.hosts() == {server.url.removeprefix("http://")}
    assert page.console() == []


def test_all_its_links_lead_somewhere(window: Browser, server: Server) -> None:
    page = opened(window, server)
    links = {str(link.get_attribute("href")) for link in page.all("a")}
    assert {f"{server.url}/{name}" for name in ("playground", "steps", "docs")} <= links
    assert {HTTP.get(link).status_code for link in links} == {200}


def test_with_keys_it_asks_for_one_and_keeps_it_to_itself(window: Browser, guarded: Server) -> None:
    page = opened(window, guarded)
    assert "an API key is required" in page("#status").text
    page.console()  # the refusal is an error there
    page.type("#key", KEY + Keys.ENTER)
    page.wait(lambda: page("#status").text == "ready")
    stored = "return [document.cookie, localStorage.length, sessionStorage.length]"
    assert page.run(stored) == ["", 0, 0]
    assert KEY not in page.driver.page_source


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_in_light_and_dark(
    window: Browser, server: Server, scheme: str
) -> None:
    with window.emulating(390, 844, scheme):
        page = opened(window, server)
        assert page.run("return document.documentElement.scrollWidth") <= 390
        background = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 23, 28)") == (scheme == "dark")


@pytest.fixture(scope="module")
def api(window: Browser, server: Server) -> Browser:
    """The page of the API, which takes seconds to load, for all tests of it: these are the last."""
    window.console()
    window.open(f"{server.url}/docs")
    window.wait(lambda: len(window.all(".opblock")) > 3)
    return window


def test_the_page_of_the_api_lists_its_operations(api: Browser, server: Server) -> None:
    listed = {element.text for element in api.all(".opblock-summary-path")}
    assert {"/v1/completions", "/tokenize", "/generate", "/score", "/metrics"} <= listed
    assert api.hosts() == {server.url.removeprefix("http://")}
    assert api.console() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_api_is_dark_where_pages_are(api: Browser, scheme: str) -> None:
    with api.preferring(scheme):
        background = api.run("return getComputedStyle(document.body).backgroundColor")
        turned = api.run("return getComputedStyle(document.getElementById('swagger-ui')).filter")
    assert (background == "rgb(20, 23, 28)") == (turned != "none") == (scheme == "dark")
