"""A real browser, and pages opened in it that must behave: fixtures for every test that looks at the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright

from tests.tools import require

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed with its module: while it is open, its event loop runs in this thread and no other can."""
    path = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens the page; at the end nothing may have gone wrong in the browser beyond what the test expects.

    That is: no console error, no exception, no violation of the content security policy, and no request to
    anywhere but the service.
    """
    problems: list[str] = []
    contexts = []

    def open_page(
        address: str,
        *,
        path: str = "/",
        expected: str = "(?!)",
        routes: dict[str, Callable[[Route], None]] | None = None,
        wait: bool = True,
        **options: Any,
    ) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()

        def note(text: str) -> None:
            if not re.search(expected, text):
                problems.append(text)

        def note_console(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                note(f"console: {message.text}")

        def note_request(url: str) -> None:
            parts = urlsplit(url)
            if parts.scheme != "data" and f"{parts.scheme}://{parts.netloc}" != address:
                note(f"left the origin: {url}")

        page.on("console", note_console)
        page.on("pageerror", lambda error: note(f"exception: {error}"))
        page.on("request", lambda request: note_request(request.url))
        page.expose_function("noteViolation", lambda text: note(f"policy: {text}"))
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " event => noteViolation(`${event.effectiveDirective} ${event.blockedURI}`))"
        )
        for pattern, handler in (routes or {}).items():
            page.route(pattern, handler)
        page.goto(address + path)
        if wait:
            expect(page.locator("#verdict")).not_to_have_text("…")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
