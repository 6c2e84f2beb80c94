"""Every algorithm on every kind of schema: the file agrees with the estimator, and the service with the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from app.contract import Bundle, DataOrigin, Manifest, ModelFile
from app.metrics import ModelMetrics
from app.service import Service
from tests.training.rows import FAST, prepared
from training.base.errors import ConfigError, ParityError
from training.data.dataset import Profile, Split
from training.results import scores
from training.sections.algorithms import AlgorithmSettings
from training.select.stage import _shown
from training.train import algorithms, parity
from training.train import fitting as train
from training.train.onnx import export

ALGORITHMS = sorted(algorithms.FACTORIES["classification"])
NAMES = ("plain", "two words", "with.dots", "Größe µm", "日本", "x" * 129, "1", "true", "a-b/c", 'quo"ted')
KINDS = ("no", "Ø ja", "日本", "0", "1.0", "None")
ROWS = 120

Table = tuple[Profile, Split]


def table(seed: int, numbers: list[str], categories: list[str], classes: int = 3) -> Table:
    """Features of the kinds given, each of another name, and classes that follow from the first one."""
    random = np.random.default_rng(seed)
    first = random.integers(0, 6, ROWS)
    columns: dict[str, Any] = {}
    features: dict[str, dict[str, Any]] = {}
    for name, kind in zip(NAMES, numbers + categories, strict=False):
        present = random.random(ROWS) > (0.2 if "gaps" in kind else 0)
        present[0] = True
        share = {"missing": 0.9} if "gaps" in kind else {}
        if kind in numbers:
            values = np.ones(ROWS) if kind == "constant" else first + random.integers(0, 10, ROWS) / 10
            columns[name] = np.where(present, values, np.nan)
            features[name] = {"type": "number", **share}
        else:
            count = {"single": 1, "pair": 2, "many": 1000}.get(kind.removesuffix(" gaps"), 6)
            known = [f"c {each} é" for each in range(count)]
            picked = [known[each * (count // 6 or 1) % count] for each in first]
            columns[name] = [each if here else None for each, here in zip(picked, present, strict=True)]
            features[name] = {"type": "category", "categories": known, **share}
    noisy = np.where(random.random(ROWS) < 0.2, random.integers(0, 6, ROWS), first)
    label = (noisy * classes // 6).tolist()
    columns["kind"] = np.array([KINDS[each] for each in label], dtype=object)
    return prepared(pd.DataFrame(columns), features)


def assert_served(name: str, profile: Profile, rows: Split) -> None:
    few = {key: min(value, 5) for key, value in FAST.get(name, {}).items()}
    block = AlgorithmSettings.model_validate(few)
    fitted = train.fit(algorithms.pipeline(name, block, profile), rows, name)
    model = export.export(fitted, profile.layout)
    generated = [parity.grid_rows(profile, rows, 500, fraction=each, seed=1) for each in (1, 2)]
    answerer = scores.of(profile.task).answerer(model, profile.layout)
    assert parity.check_parity(fitted, answerer, rows, generated).label_differences == 0
    manifest = Manifest(
        name="made-up",
        algorithm=name,
        target="kind",
        classes=profile.classes,
        class_shares=profile.class_shares,
        out_of_range="reject",
        features=profile.features,
        metrics={},
        data=DataOrigin(source="made up", sha256="0" * 64, train_rows=ROWS, test_rows=0),
        model=ModelFile(sha256="0" * 64, bytes=len(model), opset=export.OPSET),
    )
    service = Service(Bundle(manifest=manifest, model=model), ModelMetrics(manifest, CollectorRegistry()))
    asked = rows.take(np.arange(5))
    columns = dict(zip(profile.layout.numbers, asked.numbers.T.tolist(), strict=True))
    columns |= dict(zip(profile.layout.categories, asked.categories.T.tolist(), strict=True))
    instances: list[dict[str, Any]] = [
        {each: _shown(values[row]) for each, values in columns.items()} for row in range(5)
    ]
    body, status, _ = service.predict(orjson.dumps({"instances": instances}))
    assert status == 200, body
    batch = orjson.loads(body)["predictions"]
    alone = [orjson.loads(service.predict(orjson.dumps(each))[0]) for each in instances]
    labels = fitted.predict(algorithms.inputs(asked))
    expected = fitted.predict_proba(algorithms.inputs(asked))
    for answers in (batch, alone):
        for answer, label, shares in zip(answers, labels, expected, strict=True):
            assert list(answer["probabilities"]) == list(profile.classes)
            assert list(answer["probabilities"].values()) == pytest.approx(shares, abs=1e-6)
            assert answer["label"] == profile.classes[label]


def assert_served_or_refused(
    name: str, seed: int, numbers: list[str], categories: list[str], classes: int
) -> None:
    """Two algorithms need a feature that varies."""
    if name in ("catboost", "naive_bayes") and {*numbers, *categories} <= {"constant", "single"}:
        with pytest.raises((ConfigError, ParityError)):
            assert_served(name, *table(seed, numbers, categories, classes))
    else:
        assert_served(name, *table(seed, numbers, categories, classes))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(
    ("numbers", "categories"),
    [([], ["plain"]), ([], ["single"]), ([], ["pair gaps", "many"]), (["constant"], []), (["gaps"], [])],
    ids=["one category", "one value", "only categories", "constant", "one number with gaps"],
)
def test_few_features(name: str, numbers: list[str], categories: list[str], classes: int) -> None:
    assert_served_or_refused(name, 1, numbers, categories, classes)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(ALGORITHMS),
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(["plain", "gaps", "constant"]), max_size=3, unique=True),
    st.lists(
        st.sampled_from(["letters", "letters gaps", "single", "single gaps", "pair", "many"]),
        max_size=3,
        unique=True,
    ),
    st.integers(2, 6),
)
def test_any_schema(name: str, seed: int, numbers: list[str], categories: list[str], classes: int) -> None:
    if numbers or categories:
        assert_served_or_refused(name, seed, numbers, categories, classes)
