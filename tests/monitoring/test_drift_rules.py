"""Drift in the large: a week of what training looked like raises no alert, one standard deviation does, in five hours,
or in a day where hours are too quiet.

Rows are drawn as the load test draws them, from the manifest of Iris; promtool evaluates the real rules.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import yaml

from app.contract import Manifest, NumberFeature, read_bundle
from tests.load.rows import RowSource
from tests.tools import require

ROOT = Path(__file__).parents[2]
LABELS = 'job="espalier", namespace="n", environment="production", model_version="v1", pod="a"'
STEP = 10
"""Minutes between two samples."""
BUSY = 50
"""Rows in one step of the day; at night there is one."""


@pytest.fixture(scope="session")
def manifest(trained_iris: Path) -> Manifest:
    return read_bundle(trained_iris / "model").manifest


def _counts(
    manifest: Manifest, steps: int, moved: str | None, since: int
) -> dict[tuple[str, str], list[int]]:
    """Counters by feature and bin: a pod that restarts each second day, at noon."""
    random, source = Random(5), RowSource(manifest)
    pool = [source.draw(random) for _ in range(4000)]
    series: dict[tuple[str, str], list[int]] = {}
    for feature in manifest.features:
        assert isinstance(feature, NumberFeature)
        values = np.array([row[feature.name] for row in pool], dtype=np.float64)
        draws = np.random.default_rng(len(feature.name))
        total = np.zeros(len(feature.bins), dtype=np.int64)
        for step in range(steps):
            hour = step * STEP / 60
            seen = draws.choice(values, BUSY if 7 <= hour % 24 < 22 else 1)
            if feature.name == moved and step > since:
                seen = np.clip(seen + values.std(), feature.minimum, feature.maximum)
            if hour % 48 == 12:
                total[:] = 0
            total += np.bincount(np.searchsorted(feature.edges, seen, side="right"), minlength=len(total))
            for each, number in zip(feature.bins, total.tolist(), strict=True):
                series.setdefault((feature.name, each.label), []).append(number)
    return series


def _tested(
    folder: Path,
    manifest: Manifest,
    hours: int,
    cases: list[tuple[int, list[str]]],
    moved: str | None = None,
    since: int = 0,
) -> None:
    steps = hours * 60 // STEP + 1
    counted = _counts(manifest, steps, moved, since * 60 // STEP)
    input_series = [
        {
            "series": f'model_feature_bin_total{{{LABELS}, feature="{feature}", bin="{label}"}}',
            "values": " ".join(map(str, values)),
        }
        for (feature, label), values in counted.items()
    ]
    # Prometheus looks back five minutes for a gauge: a sample at each evaluation, and the evaluations are as far apart.
    input_series += [
        {
            "series": f'model_feature_reference_ratio{{{LABELS}, feature="{f.name}", bin="{each.label}"}}',
            "values": f"{each.share}+0x{steps}",
        }
        for f in manifest.features
        for each in f.bins
    ]
    queries = [
        {
            "expr": 'count by (feature) (ALERTS{alertname="EspalierFeatureDrift", alertstate="firing"})',
            "eval_time": f"{at}h",
            "exp_samples": [{"labels": f'{{feature="{name}"}}', "value": 1} for name in features],
        }
        for at, features in cases
    ]
    queries.append(
        {
            "expr": 'count(max_over_time(ALERTS{alertname="EspalierFeatureDrift", alertstate="firing"}[30d])) or vector(0)',
            "eval_time": f"{hours}h",
            "exp_samples": [{"labels": "{}", "value": 1 if moved else 0}],
        }
    )
    # Otherwise silence would prove nothing.
    queries.append(
        {
            "expr": "count(espalier:feature_psi:1h)",
            "eval_time": "17h",
            "exp_samples": [{"labels": "{}", "value": 4}],
        }
    )
    test = {
        "rule_files": [str(ROOT / "monitoring/rules/drift.yaml")],
        "evaluation_interval": f"{STEP}m",
        "group_eval_order": ["espalier-drift", "espalier-model"],
        "tests": [{"interval": f"{STEP}m", "input_series": input_series, "promql_expr_test": queries}],
    }
    _passes(folder, test)


def _passes(folder: Path, test: dict[str, Any]) -> None:
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    tested = subprocess.run(
        [require("promtool"), "test", "rules", folder / "test.yaml"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


WEEKS = pytest.mark.long(
    "monitoring/objectives.yaml", "monitoring/rules", "tests/monitoring/test_drift_rules.py"
)


@WEEKS
def test_a_week_like_training_raises_no_alert(manifest: Manifest, tmp_path: Path) -> None:
    _tested(tmp_path, manifest, 7 * 24, [(24, []), (42, []), (66, []), (168, [])])


@WEEKS
@pytest.mark.parametrize("feature", ["sepal_length", "sepal_width", "petal_length", "petal_width"])
def test_one_standard_deviation_is_told_within_five_hours(
    feature: str, manifest: Manifest, tmp_path: Path
) -> None:
    _tested(tmp_path, manifest, 22, [(14, []), (19, [feature])], moved=feature, since=14)


@WEEKS
def test_twenty_rows_an_hour_are_judged_by_the_day(manifest: Manifest, tmp_path: Path) -> None:
    """From scrapes of single rows to the alert: silent as in training, and told within a day of one deviation."""
    feature = next(each for each in manifest.features if each.name == "petal_length")
    assert isinstance(feature, NumberFeature)
    random, source, draws = Random(5), RowSource(manifest), np.random.default_rng(5)
    values = np.array([source.draw(random)[feature.name] for _ in range(4000)], dtype=np.float64)
    since, hours = 12, 26
    input_series = []
    for namespace, step in (("calm", 0.0), ("moved", float(values.std()))):
        # A row each three minutes.
        seen = draws.choice(values, hours * 20)
        seen[since * 20 :] = np.clip(seen[since * 20 :] + step, feature.minimum, feature.maximum)
        bins = np.searchsorted(feature.edges, seen, side="right")
        for number, each in enumerate(feature.bins):
            labels = f'job="espalier", namespace="{namespace}", feature="{feature.name}", bin="{each.label}"'
            total = np.repeat(np.cumsum(bins == number), 3)
            input_series += [
                {
                    "series": f"model_feature_bin_total{{{labels}}}",
                    "values": "0 " + " ".join(map(str, total)),
                },
                {
                    "series": f"model_feature_reference_ratio{{{labels}}}",
                    "values": f"{each.share}x{hours * 60}",
                },
            ]
    raised = 'max by (namespace, window) (max_over_time(ALERTS{alertstate="firing"}[1d]))'
    told = {"labels": '{namespace="moved", window="1d"}', "value": 1}
    cases: list[tuple[str, str, list[dict[str, object]]]] = [
        # Otherwise silence would prove nothing.
        ("count(espalier:feature_psi:24h)", f"{since}h", [{"labels": "{}", "value": 2}]),
        ("count(espalier:feature_psi:1h)", f"{since}h", []),
        (raised, f"{since}h", []),
        (raised, f"{hours}h", [told]),
    ]
    test = {
        "rule_files": [str(ROOT / "monitoring/rules/drift.yaml")],
        "evaluation_interval": "1m",
        "group_eval_order": ["espalier-drift", "espalier-model"],
        "tests": [
            {
                "interval": "1m",
                "input_series": input_series,
                "promql_expr_test": [
                    {"expr": expr, "eval_time": at, "exp_samples": samples} for expr, at, samples in cases
                ],
            }
        ],
    }
    _passes(tmp_path, test)
