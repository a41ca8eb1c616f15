"""A real headless Chromium, driven through the system's chromedriver."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WAIT_SECONDS = 120
WINDOW = (1200, 900)
# What no page here asks for, and what would take processor time.
UNUSED = (
    *("gpu", "extensions", "component-extensions-with-background-pages", "component-update"),
    *("default-apps", "sync", "back-forward-cache"),
)


class Browser:
    """One window."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self._origins: set[str] = set()

    def open(self, url: str) -> None:
        self._origins.add("/".join(url.split("/", 3)[:3]))
        self.driver.get(url)

    def forget(self) -> None:
        """As in a new browser, but for what it would load again: cookies, storage, the console."""
        self.driver.get("about:blank")
        command = self.driver.execute_cdp_cmd
        command("Network.clearBrowserCookies", {})
        for origin in self._origins:
            storage = {"origin": origin, "storageTypes": "all"}
            command("Storage.clearDataForOrigin", storage)
        self._origins.clear()
        self.console()

    def __call__(self, selector: str) -> WebElement:
        """The first element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def type(self, selector: str, text: object) -> None:
        """In place of what stands there, at once; a key that is no character is pressed.

        Each key is three messages and a picture of the page.
        """
        words = str(text).rstrip(Keys.TAB + Keys.ENTER)
        element = self(selector)
        element.clear()
        self.run("arguments[0].focus()", element)
        self.driver.execute_cdp_cmd("Input.insertText", {"text": words})
        if pressed := str(text).removeprefix(words):
            element.send_keys(pressed)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Until it is true; what it gave."""
        return WebDriverWait(self.driver, WAIT_SECONDS, 0.05).until(lambda _: condition())

    def console(self) -> list[str]:
        """Errors since the last call; what the page was not allowed to do is among them."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def download_to(self, folder: Path) -> None:
        """Where files go that pages save; without it they go nowhere."""
        parameters = {"behavior": "allow", "downloadPath": str(folder)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", parameters)

    @contextlib.contextmanager
    def running_first(self, script: str) -> Iterator[None]:
        """On each page, before anything of its own."""
        command = self.driver.execute_cdp_cmd
        added = command("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        try:
            yield
        finally:
            command("Page.removeScriptToEvaluateOnNewDocument", added)

    @contextlib.contextmanager
    def emulating(self, width: int, height: int, scheme: str) -> Iterator[None]:
        """A telephone's screen, in light or dark."""
        command = self.driver.execute_cdp_cmd
        screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        with self.preferring(scheme):
            command("Emulation.setDeviceMetricsOverride", screen)
            try:
                yield
            finally:
                command("Emulation.clearDeviceMetricsOverride", {})

    @contextlib.contextmanager
    def preferring(self, scheme: str) -> Iterator[None]:
        """Light or dark, as a system asks for it; a page that is there follows."""
        command = self.driver.execute_cdp_cmd
        feature = {"name": "prefers-color-scheme", "value": scheme}
        command("Emulation.setEmulatedMedia", {"features": [feature]})
        try:
            yield
        finally:
            command("Emulation.setEmulatedMedia", {"features": []})

    def hosts(self) -> set[str]:
        """Where the page loaded anything from."""
        entries = "performance.getEntriesByType('resource').map(entry => entry.name)"
        return {name.split("/")[2] for name in self.run(f"return {entries}")}


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start one; its tests need ``chromium`` and ``chromedriver``."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.add_argument("--headless=new")
    options.add_argument("--window-size={},{}".format(*WINDOW))
    options.add_argument("--disable-dev-shm-usage")  # containers have little of it
    for name in UNUSED:
        options.add_argument(f"--disable-{name}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses root
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    driver = Chrome(options, Service(shutil.which("chromedriver") or ""))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
