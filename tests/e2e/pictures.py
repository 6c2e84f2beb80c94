"""Take the pictures of the page that the README shows: `make pictures`, with chromium installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, expect, sync_playwright

from tests.app.processes import ROOT, running
from tests.browsing import CHROMIUM_OPTIONS

IMAGES = ROOT / "docs" / "images"


def main() -> None:
    chromium = shutil.which("chromium")
    model = ROOT / "model"
    if chromium is None or not (model / "model.json").exists():
        sys.exit("error: chromium and a model are needed: install chromium and run make")
    with running(model) as service, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        _take(browser, service.url, "light", IMAGES / "page.png")
        _take(browser, service.url, "dark", IMAGES / "page-dark.png")
        browser.close()


def _take(browser: Browser, url: str, scheme: Literal["light", "dark"], path: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme=scheme)
    page.goto(url)
    # The row before "typical values" is of the last class, whose neighbours are near.
    page.locator(".examples button").nth(-3).click()
    expect(page.locator("#bars .first")).to_be_visible()
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
