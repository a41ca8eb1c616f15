"""Take docs/playground.png: python -m tools.playground_screenshot docs/playground.png"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from selenium.webdriver import ActionChains

from tests.e2e.browser import chromium
from tests.e2e.serving import serve


def main(target: str) -> None:
    with (
        tempfile.TemporaryDirectory() as home,
        serve(Path(home)) as server,
        chromium(1200, 1090) as browser,
    ):
        browser.open(f"{server.url}/playground")
        browser.wait(lambda: "context" in browser("#model").text)
        browser.type("#seed", 5)
        browser("#echo").click()
        browser("#run").click()
        browser.wait(lambda: "tokens in" in browser("#status").text)
        browser("#provenance summary").click()
        token = browser.all(".token:not(.prompt)")[0]
        ActionChains(browser.driver).move_to_element(token).perform()
        browser.wait(browser("#tooltip").is_displayed)
        browser.driver.save_screenshot(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
