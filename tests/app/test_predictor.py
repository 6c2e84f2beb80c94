"""The model file behind its layout, with answers known from arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contract import BundleError, Layout, read_bundle
from app.predictor import Classifier
from tests.bundles import mixed_row, number_row


def test_numbers_are_classified(number_model: Path) -> None:
    bundle = read_bundle(number_model)
    predictor = Classifier(bundle.model, Layout.of(bundle.manifest.features))
    rows = [(5.1, 3.5, 1.4, 0.2), (6.9, 3.1, 5.4, 2.1)]

    labels, probabilities = predictor.predict(np.array(rows))

    expected = [number_row(row) for row in rows]
    assert [bundle.manifest.classes[label] for label in labels] == [row.label for row in expected]
    np.testing.assert_allclose(
        probabilities, [list(row.probabilities.values()) for row in expected], rtol=1e-12
    )


def test_categories_and_gaps_are_classified(mixed_model: Path) -> None:
    bundle = read_bundle(mixed_model)
    predictor = Classifier(bundle.model, Layout.of(bundle.manifest.features))

    _, probabilities = predictor.predict(
        np.array([[12.0, 3.0, np.nan, np.nan], [np.nan, 30.0, 5, 14]]),
        np.array([["clay"], [""]], dtype=object),
    )

    expected = [mixed_row(12.0, 3.0, "clay"), mixed_row(None, 30.0, None, "2024-05-01T12:30:00Z")]
    np.testing.assert_allclose(
        probabilities, [list(row.probabilities.values()) for row in expected], rtol=1e-12
    )


def test_many_rows_run_in_blocks_of_about_one_size(
    mixed_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(mixed_model)
    layout = Layout.of(bundle.manifest.features)
    random = np.random.default_rng(0)
    numbers = np.where(random.random((1001, 4)) < 0.1, np.nan, random.uniform(0, 40, (1001, 4)))
    categories = random.choice(np.array(["clay", "sand", ""], dtype=object), (1001, 1))
    whole = Classifier(bundle.model, layout).predict(numbers, categories)
    monkeypatch.setattr("app.predictor.BLOCK_BYTES", len(bundle.model))
    monkeypatch.setattr("app.predictor.SMALLEST_BLOCK", 250)
    predictor = Classifier(bundle.model, layout)
    session, sizes = predictor._session, []

    class Watched:
        def run(self, outputs: list[str], feed: dict[str, Any]) -> Any:
            sizes.append(len(feed["numbers"]))
            return session.run(outputs, feed)

    monkeypatch.setattr(predictor, "_session", Watched())
    labels, probabilities = predictor.predict(numbers, categories)
    assert sizes == [192, 192, 192, 192, 233]
    assert (labels == whole[0]).all()
    assert (probabilities == whole[1]).all()


def test_a_file_that_is_no_model_is_refused_in_one_line() -> None:
    with pytest.raises(BundleError, match="cannot load") as caught:
        Classifier(b"not a model", Layout(numbers=("a",), categories=()))
    assert "\n" not in str(caught.value)


def test_a_model_with_other_inputs_is_refused(number_model: Path, mixed_model: Path) -> None:
    mixed = Layout.of(read_bundle(mixed_model).manifest.features)
    with pytest.raises(BundleError, match="the features of the bundle make"):
        Classifier(read_bundle(number_model).model, mixed)
