"""Features that only raise or lower the prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.predictor import Classifier
from tests.training.rows import mixed
from training.base.errors import ConfigError
from training.sections.algorithms import AlgorithmSettings
from training.train import algorithms
from training.train import fitting as train
from training.train.onnx import export

PROFILE, ROWS = mixed(classes=2)
KEYS = {
    "xgboost": "monotone_constraints",
    "lightgbm": "monotone_constraints",
    "catboost": "monotone_constraints",
    "hist_gradient_boosting": "monotonic_cst",
    "decision_tree": "monotonic_cst",
    "random_forest": "monotonic_cst",
    "extra_trees": "monotonic_cst",
}


def pipeline(name: str, **block: Any) -> Any:
    return algorithms.pipeline(name, AlgorithmSettings.model_validate(block), PROFILE)


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_file_keeps_to_the_sign(name: str, sign: int) -> None:
    if name in ("lightgbm", "catboost"):
        pytest.importorskip(name)
    few = (
        {}
        if name == "decision_tree"
        else {"max_iter" if name == "hist_gradient_boosting" else "n_estimators": 10}
    )
    fitted = train.fit(pipeline(name, **{KEYS[name]: {"width": sign}}, **few), ROWS, name)
    predictor = Classifier(export.export(fitted, PROFILE.layout), PROFILE.layout)
    column = PROFILE.layout.numbers.index("width")
    rows = np.repeat(ROWS.numbers[:20], 51, axis=0)
    rows[:, column] = np.tile(np.linspace(0, 5, 51), 20)
    _, shares = predictor.predict(rows, np.repeat(ROWS.categories[:20], 51, axis=0))
    steps = np.diff(shares[:, 1].reshape(20, 51), axis=1) * sign
    assert steps.min() >= -1e-7
    assert sign < 0 or steps.max() > 0, "the second class is wider"


@pytest.mark.parametrize(
    ("signs", "message"),
    [
        ({"colour": 1}, "'colour' is no number among the features; there are length, width, seen.year"),
        ({"width": 2}, "width: 2 is not 1, -1 or 0"),
        ({"width": "up"}, "width: 'up' is not 1, -1 or 0"),
    ],
)
def test_what_is_no_sign_of_a_number_is_named(signs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline("xgboost", monotone_constraints=signs)


def test_a_part_of_a_datetime_is_a_number() -> None:
    columns = pipeline("xgboost", monotone_constraints={"seen.elapsed": 1})[-1].monotone_constraints
    place = PROFILE.layout.numbers.index("seen.elapsed")
    assert [each for each, sign in enumerate(columns) if sign] == [place]
