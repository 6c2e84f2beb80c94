from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from benchmarks import metrics
from benchmarks.metrics import BINS, CLASSES, FEATURES, Round
from benchmarks.serving.wrk import Outcome
from tests.app.processes import running


@pytest.mark.slow
def test_the_made_up_model_is_as_wide_as_is_said_and_can_be_served(tmp_path: Path) -> None:
    manifest = metrics.write_bundle(tmp_path / "model")
    assert (len(manifest.features), len(manifest.classes)) == (FEATURES, CLASSES) == (30, 20)
    assert {len(feature.bins) for feature in manifest.features} == {BINS} == {10}
    with running(tmp_path / "model") as service:
        for row in metrics.draw(manifest, 20):
            assert httpx.post(f"{service.url}/predict", json=row).status_code == 200
        page = httpx.get(f"{service.url}/metrics").text
    assert page.count("\nmodel_feature_bin_total{") == FEATURES * BINS
    assert page.count("\nmodel_class_reference_ratio{") == CLASSES


def test_the_report_says_what_was_found_and_how_far_it_varied() -> None:
    page = b'# HELP a A.\na 1.0\nmodel_feature_bin_total{feature="x",bin="y"} 1.0\nb_bucket{le="+Inf"} 2.0\n'

    def outcome(p99: float) -> Outcome:
        return Outcome(requests_per_second=20_000, p50_ms=0.5, p99_ms=p99, faults=())

    rounds = [
        Round([2.0 * slow] * 10, [1.0] * 10, {None: outcome(1), 15.0: outcome(1), 1.0: outcome(1 + slow)})
        for slow in (1, 2, 3)
    ]
    text = metrics.report(page, rounds, 30)
    assert "3 series from each pod" in text
    assert "| `model_feature_bin_total` | 1 |" in text
    assert "| all others | 2 |" in text
    assert "| this service | 4.00 (2.00–6.00) | 4.00 (2.00–6.00) |" in text
    assert "That is 4.0 (2.0–6.0) times the bare page. Every 15 s, it takes 0.03% of one core." in text
    assert re.search(r"\| every 1 s \| 20,000 .* \| 3\.00 \(2\.00–4\.00\) \| 3\.00 \(2\.00–4\.00\) \|", text)
