"""Debian's headless Chromium, driven through its WebDriver: what a page does when a person opens it."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

SCREENSHOTS = Path(__file__).parent / "e2e" / "screenshots"
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


class Browser:
    """One page at a time, at a chosen width and theme."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def show(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a local file as a screen ``width`` CSS pixels wide; below 500 as a phone."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
        self.driver.get(page.resolve().as_uri())

    def run(self, script: str) -> Any:
        """The value of a JavaScript function body."""
        return self.driver.execute_script(script)

    def errors(self) -> list[str]:
        """What the console has said since the last call: errors of scripts, of the security policy, of loading."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses asked for since the last call; the browser's own new-tab page is not one."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        sent = [item["params"]["request"]["url"] for item in messages if item["method"] == "Network.requestWillBeSent"]
        return [address for address in sent if not address.startswith("chrome")]

    def dialog(self) -> str | None:
        """The text of an open alert, which is closed; None where there is none."""
        try:
            alert = self.driver.switch_to.alert
        except NoAlertPresentException:
            return None
        text = alert.text
        alert.dismiss()
        return text

    def screenshot(self, name: str) -> Path:
        """The whole page as a PNG in `SCREENSHOTS`."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
        path = SCREENSHOTS / f"{name}.png"
        path.write_bytes(base64.b64decode(shot["data"]))
        return path


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile; a test without Chromium is skipped, or fails under MODELMILL_REQUIRE_ALL=1."""
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if not all(programs):
        reason = "Chromium is not here: apt-get install -y chromium chromium-driver"
        if os.environ.get("MODELMILL_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    options = Options()
    options.binary_location = str(programs[0])
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=str(programs[1])))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
