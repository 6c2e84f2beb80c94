"""The dashboards' files: that they are what the Python says, and that a person finds their way in each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitoring.dashboards import FOLDER
from monitoring.queries import (
    metric_names,
    panel_queries,
    panels,
    rule_queries,
)
from tests.app.conftest import Serve
from tests.deploy.project import ROOT
from tests.monitoring.expectations import exported_names, recorded_names

NAMES = ("overview", "service", "model", "delivery", "load")
VARIABLES = {"datasource", "environment", "namespace", "model", "model_version"}
COLUMNS = 24
BUILT_IN = re.compile(r"__rate_interval|__interval|__range")


def board(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


def everything(content: object) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(content, dict):
        yield content
        for each in content.values():
            yield from everything(each)
    elif isinstance(content, list):
        for each in content:
            yield from everything(each)


@pytest.fixture(params=NAMES)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    return board(request.param)


def test_uids_and_titles_are_unique_and_links_lead_to_the_others() -> None:
    boards = [board(name) for name in NAMES]

    assert [each["uid"] for each in boards] == [f"espalier-{name}" for name in NAMES]
    assert len({each["title"] for each in boards}) == len(NAMES)
    for each in boards:
        (link,) = each["links"]
        assert link["type"] == "dashboards"
        assert set(link["tags"]) <= set(each["tags"])
        assert link["includeVars"]
        assert link["keepTime"]


def test_a_panel_says_what_it_shows(dashboard: dict[str, Any]) -> None:
    found = list(panels(dashboard))

    titles = [each["title"] for each in found]
    assert len(set(titles)) == len(titles)
    assert len({each["id"] for each in dashboard["panels"]}) == len(dashboard["panels"])
    for each in found:
        assert len(each["title"]) > 4, each
        assert each["description"].endswith("."), each["title"]
        assert len(each["description"]) > 30, each["title"]
        assert each["fieldConfig"]["defaults"]["unit"], each["title"]
        assert each["fieldConfig"]["defaults"]["noValue"], each["title"]
        assert each["targets"], each["title"]
        references = [target["refId"] for target in each["targets"]]
        assert len(set(references)) == len(references), each["title"]


def test_there_are_not_more_panels_than_a_person_can_look_through(dashboard: dict[str, Any]) -> None:
    assert len(list(panels(dashboard))) <= 25


def test_the_first_row_says_whether_it_is_fine(dashboard: dict[str, Any]) -> None:
    first, *others = dashboard["panels"]

    assert (first["type"], first["title"]) == ("row", "Is it fine?")
    stats = [each for each in others if each["gridPos"]["y"] == 1]
    assert 4 <= len(stats) <= 8
    assert {each["type"] for each in stats} == {"stat"}
    coloured = [each for each in stats if len(each["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1]
    assert len(coloured) >= 4


def test_panels_fill_the_grid_without_overlaps(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for each in dashboard["panels"]:
        place = each["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS, each["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, each["title"]
        taken |= cells
    height = 1 + max(y for _, y in taken)
    holes = {(x, y) for x in range(COLUMNS) for y in range(height)} - taken
    assert not holes


def test_everything_is_asked_of_the_chosen_data_source(dashboard: dict[str, Any]) -> None:
    sources = [each["datasource"] for each in everything(dashboard) if "datasource" in each]

    assert {(each["type"], each["uid"]) for each in sources} == {("prometheus", "${datasource}")}
    asked = [each for each in everything(dashboard) if "expr" in each]
    assert all("datasource" in each for each in asked)


def test_variables_exist_and_are_used(dashboard: dict[str, Any]) -> None:
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    queries = " ".join(each["expr"] for panel in panels(dashboard) for each in panel["targets"])

    assert variables.keys() >= VARIABLES
    assert variables.keys() - {"datasource"} == {
        name for name in re.findall(r"\$(\w+)", queries) if not BUILT_IN.fullmatch(name)
    }
    # Two models may have features and classes of the same name, so one dashboard shows one model.
    single = {"model"} if dashboard["uid"] == "espalier-model" else set()
    for name in VARIABLES - {"datasource"} - single:
        assert variables[name]["multi"]
        assert variables[name]["includeAll"]
        assert variables[name]["current"]["value"] == "$__all"


def test_a_table_names_each_of_its_columns(dashboard: dict[str, Any]) -> None:
    for each in panels(dashboard):
        if each["type"] != "table":
            continue
        (organize,) = (t["options"] for t in each["transformations"] if t["id"] == "organize")
        targets = [target["refId"] for target in each["targets"]]
        values = ["Value"] if len(targets) == 1 else [f"Value #{reference}" for reference in targets]
        for value in values:
            assert organize["renameByName"].get(value) or organize["excludeByName"][value], each["title"]
        assert all(target["instant"] and target["format"] == "table" for target in each["targets"])


def test_a_row_of_the_overview_leads_to_its_model() -> None:
    variables = {"datasource", "environment", "model"}
    links = [
        (override["matcher"]["options"], link["url"])
        for panel in panels(board("overview"))
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "links"
        for link in each["value"]
    ]

    led = {
        column: re.fullmatch(r"/d/(espalier-\w+)\?(.+)&\$\{__url_time_range\}", url) for column, url in links
    }
    assert len(led) == len(links) >= 8
    assert {found and found[1] for found in led.values()} == {
        f"espalier-{name}" for name in ("service", "model", "delivery")
    }
    for found in led.values():
        assert found is not None
        assert set(re.findall(r"var-(\w+)=", found[2])) == variables
        there = {each["name"] for each in board(found[1].removeprefix("espalier-"))["templating"]["list"]}
        assert variables <= there


def test_every_metric_is_one_that_somebody_exports(
    number_model: Path, value_model: Path, tmp_path: Path, serve: Serve
) -> None:
    known = recorded_names() | exported_names()
    for model in (number_model, value_model):
        known |= service_names(model, tmp_path, serve)

    for each in [*panel_queries(), *rule_queries()]:
        unknown = metric_names(each.expression) - known
        assert not unknown, f"{each.source}: {each.title}"


def test_every_listed_metric_of_others_is_read_by_somebody() -> None:
    read = {name for each in [*panel_queries(), *rule_queries()] for name in metric_names(each.expression)}
    # Kept beside the ones that are read, for a person who asks more.
    spare = {"model_live_labelled_rows", "model_live_computed_timestamp_seconds"}
    spare |= {"locust_request_duration_seconds_count", "locust_request_duration_seconds_sum"}

    assert exported_names() - read == spare


def test_the_alerts_lead_to_dashboards_that_exist() -> None:
    rules = "".join(path.read_text() for path in (FOLDER.parent / "rules").glob("*.yaml"))

    linked = set(re.findall(r"/d/([\w-]+)", rules))
    assert linked
    assert linked <= {board(name)["uid"] for name in NAMES}


def service_names(model: Path, log: Path, serve: Serve) -> set[str]:
    """What the service exports, with everything that can be switched on."""
    store = {
        "feature_store": "http://127.0.0.1:9",
        "feature_store_service": "flowers",
        "feature_store_keys": {"id": "int"},
    }
    with serve(model, model_created=1, data_created=1, prediction_log=str(log), **store) as client:
        client.post("/predict", json={})
        text = client.get("/metrics").text
    return {s.name for family in text_string_to_metric_families(text) for s in family.samples}


def test_runbooks_name_panels_that_exist() -> None:
    titles = {
        document["title"].removeprefix("Espalier / "): {panel["title"] for panel in document["panels"]}
        for document in (json.loads(path.read_text()) for path in FOLDER.glob("*.json"))
    }
    text = (ROOT / "docs/operations.md").read_text()
    named = re.findall(r'dashboard \*(\w+)\*,\s+"([^"]+)"', text)
    assert len(named) == text.count('*, "') >= 7
    assert [(dashboard, panel) for dashboard, panel in named if panel not in titles[dashboard]] == []
