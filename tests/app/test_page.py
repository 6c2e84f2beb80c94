"""The page in a real browser, against the real service."""

from __future__ import annotations

import io
import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect

from app.contract import Manifest
from tests.app.processes import running
from tests.browsing import Visit
from tests.bundles import (
    HARVEST,
    IRIS_BASE,
    IRIS_CLASSES,
    IRIS_FEATURES,
    SOWN,
    ValuedRow,
    contributions_of,
    harvest_row,
    mixed_row,
    number_row,
    write_harvest_bundle,
    write_mixed_bundle,
    write_number_bundle,
)
from tests.tools import examples, free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "app" / "page.html"


@pytest.fixture(scope="module")
def numbers(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Manifest]]:
    """The service with four numbers, and what it serves."""
    directory = tmp_path_factory.mktemp("numbers")
    manifest = write_number_bundle(directory)
    with running(directory) as service:
        yield service.url, manifest


@pytest.fixture(scope="module")
def mixed(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Manifest]]:
    """The service with numbers and a category that may be missing."""
    directory = tmp_path_factory.mktemp("mixed")
    manifest = write_mixed_bundle(directory)
    with running(directory) as service:
        yield service.url, manifest


@pytest.fixture(scope="module")
def harvests(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Manifest]]:
    """The service with a regression, whose features are those of `mixed`."""
    directory = tmp_path_factory.mktemp("harvests")
    manifest = write_harvest_bundle(directory)
    with running(directory) as service:
        yield service.url, manifest


@pytest.fixture(scope="module")
def explained(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Manifest]]:
    """The service with four numbers, which explains its answers."""
    directory = tmp_path_factory.mktemp("explained")
    manifest = write_number_bundle(directory, explained=True)
    with running(directory) as service:
        yield service.url, manifest


def field(page: Page, name: str) -> Locator:
    return page.locator(f'.field[data-feature="{name}"]')


def box(page: Page, name: str) -> Locator:
    return field(page, name).locator("input[type=number]")


def slider(page: Page, name: str) -> Locator:
    return field(page, name).locator("input[type=range]")


def percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{share * 100:.1f} %"


def expect_answer(page: Page, label: str, probabilities: dict[str, float]) -> None:
    expect(page.locator("#verdict")).to_have_text(label)
    expect(page.locator("#bars .name")).to_have_text(list(probabilities))
    expect(page.locator("#bars .percent")).to_have_text([percent(each) for each in probabilities.values()])
    expect(page.locator("#bars .first .name")).to_have_text(label)


def widened(manifest: Manifest, count: int) -> dict[str, Any]:
    """A manifest with as many features and ten classes; only its page is looked at."""
    document = manifest.model_dump(mode="json")
    first = document["features"][0]
    document["features"] = [first | {"name": f"pixel_{i // 8}_{i % 8}", "unit": None} for i in range(count)]
    document["classes"] = [str(digit) for digit in range(10)]
    document["class_shares"] = [0.1] * 10
    document["examples"] = []
    return document


def answering(document: dict[str, Any]) -> Callable[[Route], None]:
    return lambda route: route.fulfill(json=document)


def answer_of(document: dict[str, Any], version: str | None = None) -> dict[str, Any]:
    rest = dict.fromkeys(document["classes"][1:], 0.01)
    first = document["classes"][0]
    model = {"name": document["name"], "version": version or document["version"]}
    return {"label": first, "probabilities": {first: 1 - sum(rest.values()), **rest}, "model": model}


def test_the_file_needs_nothing_but_itself() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("<style>") == text.count("<script>") == 1
    assert not re.search(r"<[^>]*\s(style|on\w+)=", text.split("<script>")[0]), (
        "no inline attributes: the policy"
    )
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)


@pytest.mark.slow
def test_number_inputs_match_the_schema(numbers: tuple[str, Manifest], visit: Visit) -> None:
    address, manifest = numbers
    page = visit(address)
    assert page.locator(".field").count() == len(manifest.features)
    for feature in manifest.features:
        assert feature.type == "number"
        number = box(page, feature.name)
        expect(number).to_have_value(f"{feature.typical:g}")
        expect(number).to_have_attribute("min", f"{feature.minimum:g}")
        expect(number).to_have_attribute("max", f"{feature.maximum:g}")
        expect(number).to_have_attribute("step", f"{feature.step:g}")
        expect(slider(page, feature.name)).to_have_attribute("step", f"{feature.step:g}")
        expect(field(page, feature.name).locator(".unit")).to_have_text(feature.unit or "")
        expect(field(page, feature.name).locator(".absent")).to_be_hidden()
        assert field(page, feature.name).locator("rect").count() == len(feature.bins)
    expect_answer(page, *_answer((5.8, 3.0, 4.3, 1.3)))


def _answer(values: tuple[float, ...]) -> tuple[str, dict[str, float]]:
    row = number_row(values)
    return row.label, row.probabilities


def test_the_model_introduces_itself(numbers: tuple[str, Manifest], visit: Visit) -> None:
    address, manifest = numbers
    page = visit(address)
    expect(page).to_have_title(f"{manifest.name} · Espalier")
    expect(page.locator("h1")).to_have_text(manifest.name)
    expect(page.locator("#summary")).to_contain_text(manifest.version)
    expect(page.locator("#summary")).to_contain_text(manifest.algorithm.replace("_", " "))
    expect(page.locator("#scores")).to_contain_text(f"{manifest.metrics['test']['accuracy'].value:.3f}")
    expect(page.locator("#facts")).to_contain_text(manifest.data.source)
    expect(page.locator("#facts")).to_contain_text(f"{manifest.data.train_rows} rows")
    for link in page.locator("nav a").all():
        url = link.evaluate("link => link.href")
        with urllib.request.urlopen(url, timeout=5) as response:
            assert response.status == 200, url


@pytest.mark.slow
def test_typing_changes_the_answer(numbers: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(numbers[0])
    box(page, "petal_length").fill("1.4")
    expect_answer(page, *_answer((5.8, 3.0, 1.4, 1.3)))
    expect(slider(page, "petal_length")).to_have_value("1.4")
    expect(page.locator("#spoken")).to_contain_text("setosa")


def test_a_value_between_the_steps_is_sent_as_typed(numbers: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(numbers[0])
    box(page, "petal_length").fill("5.123")
    expect_answer(page, *_answer((5.8, 3.0, 5.123, 1.3)))
    expect(box(page, "petal_length")).to_have_value("5.123")


def test_the_slider_moves_the_number_and_the_marked_bin(numbers: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(numbers[0])
    slider(page, "petal_width").fill("4.9")
    expect(box(page, "petal_width")).to_have_value("4.9")
    expect_answer(page, *_answer((5.8, 3.0, 4.3, 4.9)))
    marked = (
        field(page, "petal_width")
        .locator("rect")
        .evaluate_all("rects => rects.map(rect => rect.classList.contains('here'))")
    )
    assert marked == [False, False, False, True]


@pytest.mark.slow
def test_the_keyboard_alone_is_enough(numbers: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(numbers[0])
    focused = "document.activeElement"

    def tab_to(condition: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(f"{focused}.matches({json.dumps(condition)})"):
                assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid", (
                    "focus is visible"
                )
                return
        raise AssertionError(f"Tab never reaches {condition}")

    tab_to("#examples button")
    page.keyboard.press("Enter")
    expect_answer(page, *_answer((5.1, 3.5, 1.4, 0.2)))
    tab_to('[data-feature="petal_length"] input[type=number]')
    page.keyboard.press("ArrowUp")
    expect_answer(page, *_answer((5.1, 3.5, 1.5, 0.2)))
    tab_to('[data-feature="petal_length"] input[type=range]')
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect_answer(page, *_answer((5.1, 3.5, 1.7, 0.2)))
    page.keyboard.press("End")
    expect_answer(page, *_answer((5.1, 3.5, 12.0, 0.2)))


@pytest.mark.slow
def test_examples_fill_in_and_tell_the_truth(numbers: tuple[str, Manifest], visit: Visit) -> None:
    address, manifest = numbers
    page = visit(address)
    buttons = page.locator("#examples button")
    expect(buttons).to_have_count(len(manifest.examples) + 1)
    for button, example in zip(buttons.all(), manifest.examples, strict=False):
        expect(button).to_contain_text(str(example.label))
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        for name, value in example.values.items():
            assert float(box(page, name).input_value()) == value
        row = number_row(tuple(float(value or 0) for value in example.values.values()))
        expect_answer(page, row.label, row.probabilities)
        expect(page.locator("#compare")).to_contain_text(str(example.label))
    box(page, "sepal_length").fill("9")
    expect(page.locator("#compare")).to_have_text("")
    expect(page.locator("#examples [aria-pressed=true]")).to_have_count(0)


@pytest.mark.slow
def test_a_wrong_answer_is_called_wrong(numbers: tuple[str, Manifest], visit: Visit) -> None:
    address, manifest = numbers
    document = manifest.model_dump(mode="json")
    document["examples"][0]["label"] = "virginica"
    page = visit(address, routes={"**/model": answering(document)})
    page.locator("#examples button").first.click()
    expect(page.locator("#compare")).to_contain_text("the model is wrong here")


@pytest.mark.slow
def test_categories_and_missing_values(mixed: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(mixed[0])
    soil = field(page, "soil type").locator("select")
    expect(soil.locator("option")).to_have_text(["clay", "löss & loam", "sand", "unknown"])
    for choice in ("sand", "löss & loam", None):
        soil.select_option(label=choice or "unknown")
        row = mixed_row(10, 8, choice, SOWN.typical)
        expect_answer(page, row.label, row.probabilities)
    expect(field(page, "soil type").locator(".foot")).to_have_text("10.0 % of training rows")

    box(page, "Höhe (cm)").fill("3")
    row = mixed_row(3, 8, None, SOWN.typical)
    expect_answer(page, row.label, row.probabilities)
    unknown = field(page, "Höhe (cm)").get_by_role("checkbox", name="Höhe (cm) is unknown")
    unknown.check()
    row = mixed_row(None, 8, None, SOWN.typical)
    expect_answer(page, row.label, row.probabilities)
    expect(box(page, "Höhe (cm)")).to_have_value("")
    slider(page, "Höhe (cm)").fill("20")
    expect(unknown).not_to_be_checked()
    row = mixed_row(20, 8, None, SOWN.typical)
    expect_answer(page, row.label, row.probabilities)
    box(page, "Höhe (cm)").fill("")
    expect(unknown).to_be_checked()
    expect(field(page, "age").locator(".absent")).to_be_hidden()


def test_an_example_with_gaps_fills_in_unknown(mixed: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(mixed[0])
    page.locator("#examples button").nth(1).click()
    row = mixed_row(None, 30, None)
    expect_answer(page, row.label, row.probabilities)
    expect(field(page, "soil type").locator("select")).to_have_value("")
    expect(field(page, "Höhe (cm)").locator("input[type=checkbox]")).to_be_checked()


def test_a_date_and_time_is_that_of_the_features_zone(mixed: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(mixed[0])
    sown = field(page, "sown").locator("input[type=datetime-local]")
    expect(sown).to_have_value("2024-04-15T09:30")
    expect(field(page, "sown").locator(".unit")).to_have_text("Europe/Berlin")
    expect(field(page, "sown").locator(".foot")).to_have_text("2023-03-01 08:002024-09-30 18:30")
    sown.fill("2024-12-24T23:15")
    row = mixed_row(10, 8, "clay", "2024-12-24T22:15:00+00:00")
    expect_answer(page, row.label, row.probabilities)
    expect(page.locator("#examples [aria-pressed=true]")).to_have_count(0)
    page.locator("#examples button").first.click()
    expect(sown).to_have_value("2024-05-01T14:30")
    expect(page.locator("#examples [aria-pressed=true]")).to_have_count(1)
    row = mixed_row(12, 3, "clay", "2024-05-01T12:30:00+00:00")
    expect_answer(page, row.label, row.probabilities)
    unknown = field(page, "sown").get_by_role("checkbox", name="sown is unknown")
    unknown.check()
    expect(sown).to_have_value("")
    row = mixed_row(12, 3, "clay")
    expect_answer(page, row.label, row.probabilities)
    sown.fill("2024-12-24T23:15")
    expect(unknown).not_to_be_checked()
    sown.press("Backspace")  # the month
    expect(unknown).not_to_be_checked()
    expect(page.locator("#trouble")).to_have_text("No answer: see “sown”.")
    expect(field(page, "sown").locator(".error")).to_have_text("is not complete")


@pytest.mark.slow
def test_the_servers_objection_stands_beside_its_field(numbers: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(numbers[0], expected="status of 422")
    number = box(page, "sepal_width")
    number.fill("44")
    error = field(page, "sepal_width").locator(".error")
    expect(error).to_have_text("must be at most 8 cm")
    expect(number).to_have_attribute("aria-invalid", "true")
    expect(number).to_have_accessible_description("must be at most 8 cm")
    expect(page.locator("#trouble")).to_contain_text("sepal width")
    expect(page.locator("#answer")).to_have_class(re.compile("stale"))
    expect(page.locator("#spoken")).to_contain_text("sepal width must be at most 8 cm")
    number.fill("")
    expect(error).to_have_text("is required")
    number.fill("3")
    expect(error).to_be_hidden()
    expect(page.locator("#trouble")).to_be_hidden()
    expect(number).to_have_attribute("aria-invalid", "false")
    expect(page.locator("#answer")).not_to_have_class(re.compile("stale"))


@pytest.mark.slow
def test_what_is_not_a_number_is_not_sent(numbers: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(numbers[0])
    box(page, "sepal_width").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("-")
    expect(field(page, "sepal_width").locator(".error")).to_have_text("is not a number")
    page.keyboard.press("Control+A")
    page.keyboard.type("3.5")
    expect(field(page, "sepal_width").locator(".error")).to_be_hidden()
    expect_answer(page, *_answer((5.8, 3.5, 4.3, 1.3)))


@pytest.mark.parametrize(
    ("decision", "rule"),
    [
        ({"positive": "yes", "threshold": 0.11}, "yes is answered from 11.0 %"),
        ({"cost": [[0, 1], [8, 0]]}, "the lowest expected cost decides"),
    ],
)
def test_a_class_that_is_not_the_most_likely_is_explained(
    mixed: tuple[str, Manifest], visit: Visit, decision: dict[str, Any], rule: str
) -> None:
    address, manifest = mixed
    document = manifest.model_dump(mode="json") | {"decision": decision}
    model = {"name": manifest.name, "version": manifest.version}
    answer = {"label": "yes", "probabilities": {"no": 0.7, "yes": 0.3}, "model": model}
    page = visit(address, routes={"**/model": answering(document), "**/predict": answering(answer)})
    expect(page.locator("#runner")).to_have_text(f"30.0 %; no has 70.0 %, but {rule}")
    expect(page.locator("#facts")).to_contain_text(f"Decision{rule}")
    expect_answer(page, "yes", {"no": 0.7, "yes": 0.3})


@pytest.mark.slow
def test_an_answer_that_arrives_late_is_dropped(numbers: tuple[str, Manifest], visit: Visit) -> None:
    held: list[Route] = []

    def hold_the_slow_one(route: Route) -> None:
        if json.loads(route.request.post_data or "{}").get("petal_length") == 11:
            held.append(route)
        else:
            route.continue_()

    page = visit(numbers[0], routes={"**/predict": hold_the_slow_one})
    slider(page, "petal_length").fill("11")
    page.wait_for_timeout(200)
    assert held, "the first question is on its way"
    slider(page, "petal_length").fill("1")
    expect_answer(page, *_answer((5.8, 3.0, 1.0, 1.3)))
    held[0].continue_()
    page.wait_for_timeout(300)
    expect_answer(page, *_answer((5.8, 3.0, 1.0, 1.3)))


@pytest.mark.slow
def test_it_survives_a_restart_of_the_service(tmp_path: Path, visit: Visit) -> None:
    write_number_bundle(tmp_path)
    port = free_port()
    with running(tmp_path, port=port) as service:
        page = visit(service.url, expected="ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|status of 503")
    slider(page, "petal_length").fill("1")
    expect(page.locator("#trouble")).to_contain_text("cannot be reached")
    with running(tmp_path, port=port):
        expect(page.locator("#trouble")).to_be_hidden(timeout=15_000)
        expect_answer(page, *_answer((5.8, 3.0, 1.0, 1.3)))


@pytest.mark.slow
def test_it_waits_for_a_service_that_is_not_ready(numbers: tuple[str, Manifest], visit: Visit) -> None:
    refusals = iter([503, 503])

    def refuse_twice(route: Route) -> None:
        status = next(refusals, None)
        if status is None:
            route.continue_()
        else:
            route.fulfill(status=status, json={"error": "starting", "code": "unready", "details": []})

    page = visit(numbers[0], expected="status of 503", routes={"**/model": refuse_twice}, wait=False)
    expect(page.locator("#notice")).to_contain_text("503")
    expect(page.locator("#bars .first")).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.slow
def test_another_versions_answer_offers_its_form(numbers: tuple[str, Manifest], visit: Visit) -> None:
    address, manifest = numbers
    document = manifest.model_dump(mode="json")
    page = visit(address, routes={"**/predict": answering(answer_of(document, "feedfeedfeed"))})
    expect(page.locator("#notice")).to_contain_text("Another version")
    expect(page.locator("#source")).to_contain_text("feedfeedfeed")
    page.unroute_all()
    page.locator("#notice a").click()
    expect_answer(page, *_answer((5.8, 3.0, 4.3, 1.3)))
    expect(page.locator("#notice")).to_be_hidden()


def test_markup_in_names_stays_text(numbers: tuple[str, Manifest], visit: Visit) -> None:
    address, manifest = numbers
    evil = "<img src=x onerror=alert(1)>"
    document = manifest.model_dump(mode="json")
    document |= {"name": evil, "algorithm": evil, "target": evil, "classes": [evil, "b", "c"]}
    document["features"][0] |= {"name": evil, "unit": evil, "description": evil}
    document["examples"] = [{"values": {}, "label": evil}]
    document["metrics"]["test"][evil] = {"value": 0.5, "low": None, "high": None}
    routes = {"**/model": answering(document), "**/predict": answering(answer_of(document))}
    page = visit(address, routes=routes)
    expect(page.locator("#verdict")).to_have_text(evil)
    assert page.locator("img").count() == 0


@pytest.mark.parametrize(("width", "height"), [(360, 640), (768, 900), (1280, 720)])
def test_sixty_four_features_and_ten_classes_stay_usable(
    numbers: tuple[str, Manifest], visit: Visit, width: int, height: int
) -> None:
    address, manifest = numbers
    document = widened(manifest, 64)
    routes = {"**/model": answering(document), "**/predict": answering(answer_of(document))}
    page = visit(address, routes=routes, viewport={"width": width, "height": height})
    assert page.locator(".field").count() == 64
    assert page.locator("#bars li").count() == 10
    box(page, "pixel_7_7").scroll_into_view_if_needed()
    box(page, "pixel_7_7").focus()
    expect(page.locator("#verdict")).to_be_in_viewport(ratio=1)
    _expect_no_sideways_scroll(page)
    assert _tab_stops(page) <= 64 + 5, "one stop a feature"


def _tab_stops(page: Page) -> int:
    stops = page.evaluate(
        "[...document.querySelectorAll('input, select, button, a, summary')]"
        ".filter(each => each.tabIndex >= 0 && each.checkVisibility()).length"
    )
    return int(stops)


def _expect_no_sideways_scroll(page: Page) -> None:
    beyond = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(each => each.checkVisibility() &&"
        " !each.closest('.unseen') && each.getBoundingClientRect().right > innerWidth + 0.5).map(each => each.outerHTML)"
    )
    assert beyond == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")


@pytest.mark.parametrize("bundle", ["numbers", "mixed", "harvests"])
def test_a_phone_shows_it_without_sideways_scrolling(
    bundle: str, request: pytest.FixtureRequest, visit: Visit
) -> None:
    page = visit(request.getfixturevalue(bundle)[0], viewport={"width": 360, "height": 640})
    _expect_no_sideways_scroll(page)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("#verdict")).to_be_in_viewport(ratio=1)


# WCAG 2: every text against the nearest opaque background, 4.5 to 1, or 3 to 1 where it is large.
CONTRAST = """
() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!(own || element.matches('input[type=number]')) || !element.checkVisibility()) continue;
    if (element.matches('script, style, noscript, option') || element.closest('.unseen')) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) poor.push(`${element.textContent}: ${ratio.toFixed(2)}`);
  }
  return poor;
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["mixed", "harvests"])
def test_dark_and_light_are_two_readable_palettes(
    bundle: str, request: pytest.FixtureRequest, visit: Visit
) -> None:
    address, _ = request.getfixturevalue(bundle)
    grounds = set()
    for scheme in ("light", "dark"):
        page = visit(address, color_scheme=scheme, expected="status of 422")
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate(CONTRAST) == []
        box(page, "age").fill("-5")
        expect(page.locator("#trouble")).to_be_visible()
        assert page.evaluate(CONTRAST) == [], "also when there is trouble"
    assert len(grounds) == 2


def test_every_input_has_a_name_of_its_own(mixed: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(mixed[0])
    names = page.evaluate(
        "[...document.querySelectorAll('input, select')].filter(each => each.checkVisibility())"
        ".map(each => each.ariaLabel ?? [...each.labels].map(label => label.textContent.trim()).join())"
    )
    assert all(names)
    assert len(set(names)) == len(names)


def expect_value(page: Page, row: ValuedRow) -> None:
    """The value and its interval, as text and on the histogram."""
    low, high = row.interval
    expect(page.locator("#verdict")).to_have_text(f"{row.value:.1f} kg")
    expect(page.locator("#runner")).to_contain_text(f"90 % interval {low:.1f} to {high:.1f} kg")
    plot = page.locator(".plot").bounding_box()
    assert plot is not None

    def place(value: float) -> float:
        share = (value - HARVEST.minimum) / (HARVEST.maximum - HARVEST.minimum)
        return plot["x"] + plot["width"] * min(max(share, 0), 1)

    def wait_for(selector: str, side: str, expected: float) -> None:
        page.wait_for_function(
            "([selector, side, expected]) => Math.abs("
            "document.querySelector(selector).getBoundingClientRect()[side] - expected) < 1.5",
            arg=[selector, side, expected],
        )

    wait_for(".plot .mark", "left", place(row.value))
    wait_for(".plot .span", "left", place(low))
    wait_for(".plot .span", "right", place(high))


@pytest.mark.slow
def test_a_value_is_shown_with_its_interval_on_the_histogram(
    harvests: tuple[str, Manifest], visit: Visit
) -> None:
    address, manifest = harvests
    page = visit(address)
    expect(page.locator("#target")).to_have_text("Predicted harvest")
    expect(page.locator(".plot rect")).to_have_count(len(HARVEST.bins))
    expect(page.locator("#spread .foot span")).to_have_text(["-12", "16"])
    for hidden in ("#bars", "#key", ".plot .truth"):
        expect(page.locator(hidden)).to_be_hidden()
    expect_value(page, harvest_row(10, 8, "clay"))
    field(page, "soil type").locator("select").select_option(label="sand")
    slider(page, "Höhe (cm)").fill("30")
    expect_value(page, harvest_row(30, 8, "sand"))
    expect(page.locator("#runner")).to_contain_text("beyond the training data")
    expect(page.locator("#spoken")).to_have_text(
        "-14.5 kg, 90 % interval from -17.0 to -12.0, beyond the training data"
    )
    about = page.locator(".about")
    expect(about).to_contain_text("90 %: ± 2.5 kg; it holds 91.0 % of the test rows")
    expect(about).to_contain_text("4 features, a value")
    expect(about.locator("#scores th")).to_have_text(["R²", "RMSE", "MAE", "median absolute error"])
    assert page.locator("#scores .whisker").count() == 1
    assert manifest.interval is not None


@pytest.mark.slow
def test_a_rows_true_value_is_within_the_interval_or_not(
    harvests: tuple[str, Manifest], visit: Visit
) -> None:
    address, manifest = harvests
    document = manifest.model_dump(mode="json")
    document["examples"][1]["label"] = 9.25
    page = visit(address, routes={"**/model": answering(document)})
    buttons, compare = page.locator("#examples button"), page.locator("#compare")
    expect(buttons).to_have_text(["row 1-0.3 kg", "row 29.3 kg", "row 35.1 kg", "typical values"])
    buttons.nth(0).click()
    expect(compare).to_have_text(re.compile("✓ This row.s true value is -0.3 kg, within the interval."))
    expect(page.locator(".plot .truth")).to_be_visible()
    buttons.nth(1).click()
    expect(compare).to_have_text(re.compile("✗ This row.s true value is 9.3 kg, outside the interval."))
    box(page, "age").fill("31")
    expect(page.locator(".plot .truth")).to_be_hidden()
    expect(compare).to_have_text("")


@pytest.mark.parametrize(
    ("margin", "value", "text"),
    [(45_000, 213_456.7, "213,457"), (0.031, 0.12345, "0.123"), (0, 3.25, "3.3"), (2.5e-9, 1e-7, "1e-7")],
)
def test_a_value_has_two_digits_of_its_margin(
    harvests: tuple[str, Manifest], visit: Visit, margin: float, value: float, text: str
) -> None:
    address, manifest = harvests
    document = manifest.model_dump(mode="json")
    document["interval"]["margin"] = margin
    document["value"]["unit"] = None
    model = {"name": document["name"], "version": document["version"]}
    answer = {"value": value, "interval": [value - margin, value + margin], "model": model}
    page = visit(address, routes={"**/model": answering(document), "**/predict": answering(answer)})
    expect(page.locator("#verdict")).to_have_text(text)


@pytest.mark.slow
def test_nothing_moves_for_who_asked_for_that(numbers: tuple[str, Manifest], visit: Visit) -> None:
    duration = "getComputedStyle(document.querySelector('.fill')).transitionDuration"
    assert visit(numbers[0]).evaluate(duration) != "0s"
    assert visit(numbers[0], reduced_motion="reduce").evaluate(duration) == "0s"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_inputs_are_ranked_by_what_they_add(
    explained: tuple[str, Manifest], visit: Visit, width: int, scheme: str
) -> None:
    address, manifest = explained
    page = visit(address, viewport={"width": width, "height": 900}, color_scheme=scheme)
    for button, example in zip(page.locator(".examples button").all(), manifest.examples, strict=False):
        button.click()
        expect(page.locator("#verdict")).to_have_text(str(example.label))
        values = tuple(float(example.values[name] or 0) for name in IRIS_FEATURES)
        index = IRIS_CLASSES.index(str(example.label))
        added = contributions_of(values)[:, index]
        order = np.argsort(-np.abs(added), kind="stable")
        reasons = page.locator("#reasons > ol > li")
        expect(page.locator("#reasons figcaption")).to_have_text(
            f"What each input adds to {example.label}, in log-odds"
        )
        titles = [f"{IRIS_FEATURES[place].replace('_', ' ')} {values[place]:g} cm" for place in order]
        expect(reasons.locator(".name")).to_have_text(titles)
        shown = [
            float(each.replace("\N{MINUS SIGN}", "-")) for each in reasons.locator(".added").all_inner_texts()
        ]
        assert shown == pytest.approx(added[order], abs=0.006)
        total = page.locator("#reasons .sum").inner_text().rstrip(".").rpartition(" ")[2]
        assert float(total.replace("\N{MINUS SIGN}", "-")) == pytest.approx(
            IRIS_BASE[index] + added.sum(), abs=0.006
        )
        longest = max(abs(value) for value in added)
        track = reasons.nth(0).locator(".track").bounding_box()
        assert track is not None
        span = max(0, *added) - min(0, *added)
        for row, place in enumerate(order):
            assert reasons.nth(row).get_attribute("class") == ("down" if added[place] < 0 else "up")
        page.wait_for_timeout(300)
        first = reasons.nth(0).locator("i").bounding_box()
        assert first is not None
        assert first["width"] == pytest.approx(track["width"] * longest / span, abs=1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_a_model_without_explanations_shows_none(numbers: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(numbers[0])
    expect(page.locator("#reasons")).to_be_hidden()


@pytest.mark.slow
def test_many_contributions_are_folded(explained: tuple[str, Manifest], visit: Visit) -> None:
    """The names of features are text, whatever they look like."""
    address, manifest = explained
    document = widened(manifest, 30)
    document["explanation"] = {**json.loads(manifest.model_dump_json())["explanation"], "base": [0.5] * 10}
    names = [each["name"] for each in document["features"]]
    explanation = {
        "base": 0.5,
        "unit": "log-odds",
        "class": document["classes"][0],
        "contributions": {name: (-1) ** place * place / 10 for place, name in enumerate(names)},
    }
    answer = answer_of(document)
    model = answer.pop("model")
    predictions = {"predictions": [{**answer, "explanation": explanation}], "model": model}
    page = visit(address, routes={"**/model": answering(document), "**/predict": answering(predictions)})
    expect(page.locator("#reasons > ol > li")).to_have_count(8)
    expect(page.locator("#reasons summary")).to_have_text("22 smaller ones")
    page.locator("#reasons summary").click()
    expect(page.locator("#reasons details li")).to_have_count(22)
    expect(page.locator("#reasons details li").last.locator(".added")).to_have_text("0.00")


def decoded(picture: NDArray[np.uint8]) -> list[str]:
    """The texts of all codes in a picture, read by a decoder that is not the page's."""
    return [each.text for each in zxingcpp.read_barcodes(picture)]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_the_qr_code_holds_the_address(
    numbers: tuple[str, Manifest], visit: Visit, scheme: str, width: int
) -> None:
    address, _ = numbers
    page = visit(address, viewport={"width": width, "height": 700}, color_scheme=scheme)
    dialog = page.locator("#shared")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="QR code").click()
    expect(page.locator("#address")).to_have_text(f"{address}/")
    expect(page.locator("#here")).to_be_visible()
    shot = Image.open(io.BytesIO(dialog.screenshot())).convert("L")
    assert decoded(np.asarray(shot)) == [f"{address}/"]
    page.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


@pytest.mark.slow
def test_a_link_opens_the_code_of_the_rest_of_the_address(
    numbers: tuple[str, Manifest], visit: Visit
) -> None:
    address, _ = numbers
    page = visit(address, path="/?qr&from=poster#top")
    expect(page.locator("#shared")).to_be_visible()
    expect(page.locator("#address")).to_have_text(f"{address}/?from=poster")
    page.keyboard.press("Escape")
    expect(page.locator("#shared")).to_be_hidden()


@pytest.mark.slow
def test_a_code_of_every_length_is_read(numbers: tuple[str, Manifest], visit: Visit) -> None:
    page = visit(numbers[0])

    @given(
        st.just("x" * 666) | st.text(st.characters(codec="utf-8", min_codepoint=33), min_size=1, max_size=666)
    )
    @settings(max_examples=examples(60))
    def check(text: str) -> None:
        rows = page.evaluate("text => qrCode(text)", text)
        if len(text.encode()) > 666:
            assert rows is None
            return
        dark = np.pad(np.array(rows, dtype=np.uint8), 4)
        assert decoded(np.kron(255 * (1 - dark), np.ones((3, 3), np.uint8))) == [text]

    check()
