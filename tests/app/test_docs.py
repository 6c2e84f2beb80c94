"""The documentation in a real browser: complete without another host, whatever the bundle and the prefix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.contract import MANIFEST_FILE, Manifest
from tests.app.processes import running
from tests.browsing import Visit
from tests.bundles import write_number_bundle

PREFIX = "/models/iris"
HOSTILE = "</title><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>`${1}{{}}"


@pytest.fixture(scope="module")
def plain(browser: Browser, number_model: Path) -> Iterator[str]:
    with running(number_model) as service:
        yield service.url


@pytest.fixture(scope="module")
def prefixed(browser: Browser, number_model: Path) -> Iterator[str]:
    with running(number_model, root_path=PREFIX) as service:
        yield service.url


def expect_documentation(page: Page, title: str) -> None:
    # The script is long, and machines may be slow.
    expect(page.locator(".info .title")).to_contain_text(title, timeout=30_000)
    expect(page.locator(".opblock-summary-path").filter(has_text="/predict")).to_have_count(1)
    expect(page.locator(".opblock")).to_have_count(14)


def expect_an_answer(page: Page) -> None:
    """Try an operation out, as a person would."""
    page.locator("#operations-predict-predict_predict_post").get_by_role("button").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response .response-col_status")).to_contain_text("200")
    expect(page.locator(".live-responses-table .microlight").first).to_contain_text('"label": "setosa"')


@pytest.mark.slow
def test_the_documentation_needs_no_other_host(plain: str, visit: Visit) -> None:
    page = visit(plain, path="/docs", wait=False)
    expect_documentation(page, "Espalier: iris")
    expect_an_answer(page)


@pytest.mark.slow
def test_a_proxy_may_pass_a_prefix_on(prefixed: str, visit: Visit) -> None:
    for prefix in ("", PREFIX):
        page = visit(prefixed, path=f"{prefix}/docs", wait=False)
        expect_documentation(page, "Espalier: iris")
        expect_an_answer(page)
        # The page of the model, which visit() waits for, and its link to the documentation.
        page = visit(prefixed, path=prefix or "/")
        assert urlsplit(page.url).path == f"{prefix}/"
        page.locator("a[href=docs]").click()
        expect_documentation(page, "Espalier: iris")
        assert urlsplit(page.url).path == f"{prefix}/docs"


@pytest.mark.slow
def test_a_proxy_may_take_a_prefix_off(plain: str, visit: Visit) -> None:
    def take_off(route: Route) -> None:
        parts = urlsplit(route.request.url)
        assert parts.path.startswith(f"{PREFIX}/"), "a request left the prefix"
        route.continue_(url=plain + parts.path.removeprefix(PREFIX))

    page = visit(plain, path=f"{PREFIX}/docs", routes={"**/*": take_off}, wait=False)
    expect_documentation(page, "Espalier: iris")
    expect_an_answer(page)
    visit(plain, path=f"{PREFIX}/", routes={"**/*": take_off})


@pytest.mark.slow
def test_what_a_bundle_says_is_text(browser: Browser, visit: Visit, tmp_path: Path) -> None:
    document = write_number_bundle(tmp_path).model_dump(mode="json")
    document |= {"name": HOSTILE, "target": HOSTILE, "algorithm": HOSTILE}
    document["features"][0]["description"] = HOSTILE
    (tmp_path / MANIFEST_FILE).write_text(
        Manifest.model_validate(document).sealed().model_dump_json(), encoding="utf-8"
    )
    with running(tmp_path) as service:
        # Swagger UI parses a description's markup before it cleans it: the policy stops its scripts, its picture is a 404.
        page = visit(
            service.url,
            path="/docs",
            wait=False,
            expected="404|inline event handler|^policy: script-src-attr inline$",
        )
        expect(page).to_have_title(f"Espalier: {HOSTILE}")
        expect_documentation(page, f"Espalier: {HOSTILE}")
        assert page.evaluate("window.hacked") is None
        page = visit(service.url)
        expect(page.locator("#name")).to_have_text(HOSTILE)
        assert page.evaluate("window.hacked") is None
