"""Every query of every dashboard and rule, asked of a real Prometheus that watches the real service.

A query must parse, must read only what somebody exports, and must have an answer. An alert has none while all is well:
what it compares must have.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import ModelMetrics
from common.errors import EspalierError
from monitoring.prometheus import Sample
from monitoring.queries import (
    VARIABLES,
    Query,
    metric_names,
    panel_queries,
    rule_queries,
    substitute,
)
from tests.app.processes import ROOT
from tests.bundles import write_mixed_bundle, write_value_bundle
from tests.monitoring import pictures
from tests.monitoring.expectations import exported_names, operands, recorded_names
from tests.monitoring.world import World, watching

FEATURE = "soil type"


# -------------------------------------------------------------------------------------------- by themselves


def test_the_metrics_of_a_query_are_found_wherever_they_stand() -> None:
    found = metric_names(
        "sum by (a) (rate(one_total[5m])) / on (a) group_left () (two{x='y'} or three offset 1h) "
        "+ histogram_quantile(0.9, four_bucket) - max_over_time((five > 1)[1h:1m]) + absent({__name__='six'})"
    )

    assert found == {"one_total", "two", "three", "four_bucket", "five"}


def test_what_is_no_query_is_an_error_of_one_line() -> None:
    with pytest.raises(EspalierError, match=r"^not PromQL: [^\n]+: sum\($"):
        metric_names("sum(")


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("a > 5", ["a"]),
        ("a > 2 * b", ["a", "2 * b"]),
        ("sum(a) / sum(b) > 0.5 and c >= 10", ["sum(a) / sum(b)", "c"]),
        ("(a unless on (x) b) or absent(up)", ["a", "b", "up"]),
        ("count_over_time((a > 0.2)[6h:1h]) >= 4", ["a"]),
        ("label_replace(a == 1, 'x', '$1', 'y', '(.+)')", ["a"]),
        ("rate(a[5m]) * 60", ["rate(a[5m]) * 60"]),
    ],
)
def test_a_choice_stands_for_what_it_chooses_from(expression: str, parts: list[str]) -> None:
    assert operands(expression) == parts


def test_grafanas_variables_are_replaced_in_all_their_forms() -> None:
    text = (
        'a{x=~"$namespace", y=~"${environment:regex}", z="[[model_version]]", w="$unknown"}[$__rate_interval]'
    )

    assert substitute(text) == 'a{x=~".*", y=~".*", z=".*", w="$unknown"}[5m]'


# ------------------------------------------------------------------------------------------ in a small world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    model = tmp_path_factory.mktemp("model")
    write_mixed_bundle(model)
    with watching(model, folder) as running:
        # The last of each chain: what needs most of the others.
        running.wait_for("espalier:class_psi:24h")
        # Of the service that runs here, too: drift needs hundreds of its rows.
        running.wait_for('espalier:rejected:ratio_rate5m{environment="local"}')
        features = len(running.manifest.features)
        running.wait_for(
            f'count(espalier:feature_psi:1h{{environment="local"}}) == {features} '
            'and max(espalier:feature_psi:1h{environment="local"}) > 0.2'
        )
        running.wait_for('ALERTS{alertname="EspalierOutOfSync", alertstate="firing"}')
        running.wait_for("espalier:http_slow:budget_left_ratio30d")
        yield running


def asked() -> list[Query]:
    return [*panel_queries({**VARIABLES, "feature": FEATURE}), *rule_queries()]


def has_data_soon(world: World, expression: str) -> bool:
    """Whether a query has data within ten seconds."""
    for _ in range(20):
        if has_data(world.prometheus.query(expression)):
            return True
        time.sleep(0.5)
    return False


def has_data(samples: list[Sample]) -> bool:
    return any(not math.isnan(each.value) for each in samples)


@pytest.mark.long("app/metrics.py", "monitoring", "tests/monitoring")
def test_every_query_of_every_panel_and_rule_has_an_answer(world: World) -> None:
    silent = []
    for each in asked():
        if has_data(world.prometheus.query(each.expression)):
            continue
        parts = operands(each.expression) if each.kind == "alert" else [each.expression]
        silent += [
            f"{each.source}: {each.title}: {part}"
            for part in parts
            if not has_data(world.prometheus.query(part))
            # While Prometheus compacts the blocks of recorded history, a query may miss them.
            and not has_data_soon(world, part)
        ]

    assert not silent, "\n".join(silent)


@pytest.mark.slow
def test_every_query_over_time_has_an_answer(world: World) -> None:
    """As a panel asks it: a range, whose steps may lack what this moment has."""
    end = world.story.end
    panels = [each for each in asked() if each.kind == "panel"]
    silent = [
        f"{each.source}: {each.title}: {each.expression}"
        for each in panels
        if not world.prometheus.query_range(each.expression, end - 1800, end + 60, 60)
    ]

    assert not silent, "\n".join(silent)


@pytest.mark.slow
def test_the_world_has_only_metrics_that_somebody_exports(world: World, tmp_path: Path) -> None:
    """Otherwise a query could find data here that no cluster has."""
    text = httpx.get(f"{world.service.url}/metrics").text
    registry = CollectorRegistry()
    ModelMetrics(write_value_bundle(tmp_path), registry)
    text += generate_latest(registry).decode()
    service = {s.name for family in text_string_to_metric_families(text) for s in family.samples}
    told = {each.name for each in world.story.series}

    exported = service | exported_names()
    assert told <= exported
    known = exported | recorded_names()
    assert {name for each in asked() for name in metric_names(each.expression)} <= known


@pytest.mark.slow
def test_prometheus_evaluates_every_rule(world: World) -> None:
    loaded = world.prometheus.rules()

    assert {each.name for each in loaded} == {each.title for each in rule_queries()}
    assert [each for each in loaded if each.error] == []


@pytest.mark.slow
def test_the_rules_see_what_happens_to_the_real_service(world: World) -> None:
    """The service that runs here gets refusals, and rows at their limits, from the world's traffic."""
    (refused,) = world.prometheus.query('espalier:rejected:ratio_rate5m{environment="local"}')
    drift = world.prometheus.query('espalier:feature_psi:1h{environment="local"}')
    versions = world.prometheus.query('count by (model_version) (model_info{environment="local"})')

    assert refused.value > 0.1
    assert {each.labels["feature"] for each in drift} == {each.name for each in world.manifest.features}
    assert max(each.value for each in drift) > 0.2
    assert [each.labels["model_version"] for each in versions] == [world.manifest.version]


@pytest.mark.long("monitoring/dashboards", "tests/monitoring/pictures.py")
def test_the_dashboards_can_be_drawn(world: World, tmp_path: Path) -> None:
    """The pictures themselves are for people to judge."""
    moment = pictures.look(world.prometheus, world.story.end, 2)

    for name in ("delivery", "load", "model", "overview", "service"):
        content = pictures.draw(name, moment, tmp_path).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert 20_000 < len(content) < 300_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hours", "why"),
    [
        ("0", "0 hours are no time to look at"),
        ("1", "Prometheus at http://127.0.0.1:9 cannot be reached: .+"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path: Path, hours: str, why: str) -> None:
    options = ["--prometheus=http://127.0.0.1:9", f"--output={tmp_path / 'new'}", f"--hours={hours}"]
    command = [sys.executable, "-m", "tests.monitoring.pictures", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert re.fullmatch(f"error: {why}\n", done.stderr)


@pytest.mark.slow
def test_every_query_can_be_printed() -> None:
    def printed(*options: str) -> list[str]:
        command = [sys.executable, "-m", "monitoring.queries", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert len(printed()) == 2 * (len(panel_queries()) + len(rule_queries()))
    assert "http_requests_total" in printed("--metrics")
