"""Take the pages' pictures: python -m tools.playground_screenshot FILE [FILE...]

A file is named after its page: docs/home.png is /, docs/playground.png, docs/steps.png.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from selenium.webdriver import ActionChains

from tests.e2e.browser import Browser, chromium
from tests.e2e.serving import serve


def main(*targets: str) -> None:
    with (
        tempfile.TemporaryDirectory() as home,
        serve(Path(home)) as server,
        chromium(1200, 1090) as browser,
    ):
        for target in targets:
            page = Path(target).stem
            browser.open(f"{server.url}/{'' if page == 'home' else page}")
            PAGES[page](browser)
            browser.driver.save_screenshot(target)


def _playground(browser: Browser) -> None:
    browser.wait(lambda: "context" in browser("#model").text)
    browser.type("#seed", 5)
    browser("#echo").click()
    browser("#run").click()
    browser.wait(lambda: "tokens in" in browser("#status").text)
    browser.all(".token:not(.prompt)")[2].click()
    browser.wait(lambda: browser("#inside-status").text.startswith("token "))
    _point_at(browser, ".token:not(.prompt)")


def _steps(browser: Browser) -> None:
    browser.wait(lambda: "steps of" in browser("#model").text)
    browser("#run").click()
    browser.wait(lambda: browser("#status").text == "6 of 6 steps")
    browser("#save").send_keys("\ue012" * 2)  # the left arrow
    browser("#table").find_element("xpath", "..").find_element("tag name", "summary").click()
    _point_at(browser, ".token:nth-child(9)")


def _point_at(browser: Browser, selector: str) -> None:
    ActionChains(browser.driver).move_to_element(browser(selector)).perform()
    browser.wait(browser("#tooltip").is_displayed)


def _home(browser: Browser) -> None:
    browser.wait(lambda: browser("#status").text == "ready")


PAGES = {"home": _home, "playground": _playground, "steps": _steps}

if __name__ == "__main__":
    main(*sys.argv[1:])
