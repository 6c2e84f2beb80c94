"""Our scores on weights against scikit-learn's on rows."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from app.contract import Score, Task
from training.results import classification, regression, scores
from training.results.figures import Answers


def _rows(seed: int, classes: int, rows: int, decimals: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels with every class present, and probabilities rounded so that ties happen."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, rows)])
    raw = np.round(random.dirichlet(np.ones(classes), len(labels)), decimals) + 10.0**-decimals
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    return labels, probabilities.argmax(axis=1), probabilities


def _scores(task: Task, target: np.ndarray, answers: Answers) -> dict[str, float]:
    found = scores.of(task).scores(target, answers, np.ones((1, len(target))))
    return {str(name): float(value[0]) for name, value in found.items()}


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(0, 60), st.integers(1, 4))
@settings(max_examples=60)
def test_every_metric_is_scikit_learns(seed: int, classes: int, rows: int, decimals: int) -> None:
    labels, predicted, probabilities = _rows(seed, classes, rows, decimals)
    ours = _scores("classification", labels, (predicted, probabilities))
    auc_input = probabilities[:, 1] if classes == 2 else probabilities
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "log_loss": metrics.log_loss(labels, probabilities),
        "roc_auc": metrics.roc_auc_score(labels, auc_input, multi_class="ovr"),
        "average_precision": metrics.average_precision_score(
            labels if classes == 2 else np.eye(classes)[labels], auc_input
        ),
        "brier_score": metrics.brier_score_loss(labels, auc_input),
        "calibration_error": _calibration_error(labels, probabilities),
    }
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        expected |= {f"precision_{average}": precision, f"recall_{average}": recall, f"f1_{average}": f1}
    assert ours == pytest.approx(expected, abs=1e-12)


def _calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    highest, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    total = 0.0
    for place in range(10):
        inside = np.minimum(np.floor(highest * 10), 9) == place
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - highest[inside].mean())
    return total


def test_a_mistake_costs_what_the_matrix_says() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 0, 0])
    cost = np.array([[0.0, 1.0], [8.0, 0.0]])
    found = scores.point(scores.of("classification", cost), labels, (predicted, np.eye(2)[predicted]))
    assert found["cost"] == pytest.approx(17 / 5)
    assert "cost" not in scores.point(scores.of("classification"), labels, (predicted, np.eye(2)[predicted]))


@given(st.integers(0, 10_000), st.integers(2, 4))
@settings(max_examples=30)
def test_a_weight_is_a_repeated_row(seed: int, classes: int) -> None:
    labels, predicted, probabilities = _rows(seed, classes, 30, 2)
    repeats = np.random.default_rng(seed).integers(0, 4, len(labels))
    repeats[:classes] += 1
    again = np.repeat(np.arange(len(labels)), repeats)
    answers = (predicted, probabilities)
    weighted = scores.of("classification").scores(labels, answers, repeats[None, :].astype(float))
    repeated = _scores("classification", labels[again], (predicted[again], probabilities[again]))
    assert {name: value[0] for name, value in weighted.items()} == pytest.approx(repeated, abs=1e-12)


def test_per_class_and_confusion_are_scikit_learns() -> None:
    labels, predicted, probabilities = _rows(3, 4, 80, 2)
    table = classification.per_class(labels, predicted, probabilities)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, zero_division=0
    )
    for each, row in enumerate(table):
        assert row == pytest.approx(
            {
                "precision": precision[each],
                "recall": recall[each],
                "f1": f1[each],
                "support": support[each],
                "roc_auc": metrics.roc_auc_score(labels == each, probabilities[:, each]),
            },
            abs=1e-6,
        )
    assert (
        classification.confusion(labels, predicted, 4) == metrics.confusion_matrix(labels, predicted)
    ).all()


def test_intervals_hold_the_value_and_repeat_with_the_seed() -> None:
    labels, predicted, probabilities = _rows(1, 3, 100, 3)

    def run(seed: int) -> dict[str, Score]:
        return scores.with_intervals(
            scores.of("classification"),
            labels,
            (predicted, probabilities),
            resamples=400,
            confidence=0.95,
            seed=seed,
        )

    first = run(5)
    assert first == run(5)
    assert first != run(6)
    for each in first.values():
        assert each.low is not None
        assert each.high is not None
        assert each.low <= each.value <= each.high
        assert each.low < each.high


def test_chunks_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, predicted, probabilities = _rows(1, 3, 50, 3)
    whole = scores.with_intervals(
        scores.of("classification"), labels, (predicted, probabilities), resamples=200, confidence=0.9, seed=1
    )
    monkeypatch.setattr(scores, "_CHUNK", 40 * len(labels))
    chunked = scores.with_intervals(
        scores.of("classification"), labels, (predicted, probabilities), resamples=200, confidence=0.9, seed=1
    )
    # The draws are taken class by class within a chunk, so they differ; the interval they estimate does not.
    for name, each in whole.items():
        assert each.low == pytest.approx(chunked[name].low, abs=0.06)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_intervals_widen_where_rows_repeat_in_groups(task: Task) -> None:
    """Nine copies of a row say no more than the row: only whole groups give its interval."""
    random = np.random.default_rng(4)
    target = random.integers(0, 2, 60) if task == "classification" else random.normal(size=60)
    shares = np.clip(0.5 + (target - 0.5) * 0.3 + random.normal(0, 0.2, 60), 0.05, 0.95)
    answers: Answers = (target + random.normal(0, 0.5, 60),)
    if task == "classification":
        answers = ((shares > 0.5).astype(int), np.column_stack([1 - shares, shares]))
    groups = np.arange(60)

    def widths(copies: int, groups: np.ndarray | None) -> dict[str, float]:
        found = scores.with_intervals(
            scores.of(task),
            np.repeat(target, copies),
            tuple(np.repeat(each, copies, axis=0) for each in answers),
            resamples=2000,
            confidence=0.95,
            seed=1,
            groups=groups,
        )
        return {name: (each.high or 0) - (each.low or 0) for name, each in found.items()}

    alone, repeated, grouped = widths(1, None), widths(9, None), widths(9, np.repeat(groups, 9))
    for name, width in alone.items():
        if width:
            assert repeated[name] < width / 2
            assert grouped[name] == pytest.approx(width, rel=0.15, abs=0.01)


def test_a_resample_of_groups_may_miss_a_class() -> None:
    """Of three groups, the only row of a class is in one; the ROC AUC is then that of the other resamples."""
    target, groups = np.array([0, 0, 1, 0, 0, 0]), np.array([7, 7, 7, 8, 8, 9])
    shares = np.array([0.1, 0.8, 0.7, 0.3, 0.2, 0.4])
    answers = ((shares > 0.5).astype(int), np.column_stack([1 - shares, shares]))
    found = scores.with_intervals(
        scores.of("classification"), target, answers, resamples=200, confidence=0.9, seed=1, groups=groups
    )
    assert all(math.isfinite(each.low or 0) and math.isfinite(each.high or 0) for each in found.values())
    assert found["roc_auc"].low is not None
    assert found["roc_auc"].low < found["roc_auc"].value


def test_the_only_group_of_a_slice_is_drawn_row_by_row() -> None:
    labels, predicted, probabilities = _rows(1, 3, 50, 3)
    for groups in (None, np.full(len(labels), 4)):
        found = scores.with_intervals(
            scores.of("classification"),
            labels,
            (predicted, probabilities),
            resamples=200,
            confidence=0.9,
            seed=1,
            groups=groups,
        )
        assert (found["accuracy"].low or 0) < found["accuracy"].value


def test_no_warning_when_a_class_is_never_predicted() -> None:
    labels = np.array([0, 1, 2, 2])
    probabilities = np.tile([0.6, 0.3, 0.1], (4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = scores.point(
            scores.of("classification"), labels, (probabilities.argmax(axis=1), probabilities)
        )
    assert result["recall_macro"] == pytest.approx(1 / 3, abs=1e-6)


class TestPaired:
    def test_the_same_answers_do_not_differ(self) -> None:
        labels, predicted, probabilities = _rows(3, 3, 40, 2)
        answers = (predicted, probabilities)
        found = scores.paired(
            scores.of("classification"), labels, answers, answers, resamples=100, confidence=0.9, seed=1
        )
        assert set(found.values()) == {Score(value=0.0, low=0.0, high=0.0)}

    def test_turned_round_it_is_the_opposite(self) -> None:
        labels, predicted, probabilities = _rows(3, 3, 40, 2)
        first, second = (predicted, probabilities), (1 - predicted % 2, probabilities[:, ::-1])
        there = scores.paired(
            scores.of("classification"), labels, first, second, resamples=200, confidence=0.9, seed=1
        )
        back = scores.paired(
            scores.of("classification"), labels, second, first, resamples=200, confidence=0.9, seed=1
        )
        for name, each in there.items():
            assert (each.value, each.low, each.high) == pytest.approx(
                (-back[name].value, -(back[name].high or 0), -(back[name].low or 0)), abs=2e-6
            )

    def test_it_is_narrower_than_the_models_own_intervals(self) -> None:
        """Two models that differ on one row in forty: what is uncertain of both is not of their difference."""
        labels = np.repeat([0, 1], 20)
        random = np.random.default_rng(5)
        predicted = np.where(random.random(40) < 0.8, labels, 1 - labels)
        other = predicted.copy()
        other[0] = 1 - other[0]
        options = {"resamples": 2000, "confidence": 0.95, "seed": 1}
        answers = [(each, np.eye(2)[each] * 0.8 + 0.1) for each in (predicted, other)]
        difference = scores.paired(scores.of("classification"), labels, *answers, **options)["accuracy"]  # type: ignore[arg-type]
        own = scores.with_intervals(scores.of("classification"), labels, answers[0], **options)["accuracy"]  # type: ignore[arg-type]
        assert abs(difference.value) == pytest.approx(1 / 40)
        assert (difference.high or 0) - (difference.low or 0) < ((own.high or 0) - (own.low or 0)) / 2

    def test_it_agrees_with_resampling_row_by_row(self) -> None:
        labels, predicted, probabilities = _rows(11, 3, 60, 2)
        other = np.random.default_rng(2).permutation(predicted)
        found = scores.paired(
            scores.of("classification"),
            labels,
            (predicted, probabilities),
            (other, probabilities),
            resamples=4000,
            confidence=0.9,
            seed=3,
        )["accuracy"]
        random = np.random.default_rng(4)
        strata = [np.flatnonzero(labels == each) for each in range(3)]
        drawn = []
        for _ in range(4000):
            rows = np.concatenate([random.choice(each, len(each)) for each in strata])
            drawn.append((other[rows] == labels[rows]).mean() - (predicted[rows] == labels[rows]).mean())
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.05, 0.95])), abs=0.02)


values = st.floats(-1e6, 1e6).map(lambda each: round(each, 3))


class TestRegression:
    @given(st.lists(st.tuples(values, values), min_size=2, max_size=60))
    def test_every_metric_is_scikit_learns(self, rows: list[tuple[float, float]]) -> None:
        target, answers = (np.array(each) for each in zip(*rows, strict=True))
        expected = {
            "r2": metrics.r2_score(target, answers),
            "rmse": metrics.root_mean_squared_error(target, answers),
            "mae": metrics.mean_absolute_error(target, answers),
            "median_absolute_error": metrics.median_absolute_error(target, answers),
        }
        if np.ptp(target) == 0:
            # scikit-learn divides by what rounding leaves of the spread of three equal values.
            expected["r2"] = float((target == answers).all())
        assert _scores("regression", target, (answers,)) == pytest.approx(expected, rel=1e-9, abs=1e-9)

    @given(st.lists(st.tuples(values, values, st.integers(0, 3)), min_size=3, max_size=40))
    def test_a_weight_is_a_repeated_row(self, rows: list[tuple[float, float, int]]) -> None:
        target, answers, repeats = (np.array(each) for each in zip(*rows, strict=True))
        repeats[:2] += 1
        again = np.repeat(np.arange(len(target)), repeats)
        weighted = scores.of("regression").scores(target, (answers,), repeats[None, :].astype(float))
        repeated = _scores("regression", target[again], (answers[again],))
        assert {name: value[0] for name, value in weighted.items()} == pytest.approx(
            repeated, rel=1e-6, abs=1e-6
        )

    @pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
    def test_the_unit_changes_no_digits(self, unit: float) -> None:
        random = np.random.default_rng(3)
        target = random.normal(size=80)
        answers = target + random.normal(scale=0.1, size=80)
        plain = scores.point(scores.of("regression"), target, (answers,))
        scaled = scores.point(scores.of("regression"), target * unit, (answers * unit,))
        assert scaled["r2"] == plain["r2"]
        for name in ("rmse", "mae", "median_absolute_error"):
            assert scaled[name] == pytest.approx(plain[name] * unit, rel=1e-5)

    def test_far_from_zero_no_digits_are_lost(self) -> None:
        target = 1e9 + np.arange(10) / 10
        answers = target + 0.01
        assert scores.point(scores.of("regression"), target, (answers,))["r2"] == pytest.approx(
            1 - 0.0001 * 10 / np.square(target - target.mean()).sum(), abs=1e-4
        )

    @given(st.integers(0, 1000), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
    @settings(max_examples=40)
    def test_the_margin_is_the_order_statistic_of_split_conformal(self, seed: int, level: float) -> None:
        errors = np.abs(np.random.default_rng(seed).normal(size=99))
        margin = regression.margin(errors, level)
        assert (errors <= margin).sum() == math.ceil(100 * level)

    def test_new_rows_are_held_as_often_as_asked(self) -> None:
        random = np.random.default_rng(8)
        held = [
            abs(random.standard_normal()) <= regression.margin(np.abs(random.standard_normal(40)), 0.9)
            for _ in range(4000)
        ]
        # ceil(41 * 0.9) / 41 = 0.902 is the coverage of exchangeable errors; three standard errors are 0.014.
        assert np.mean(held) == pytest.approx(0.902, abs=0.015)

    def test_too_few_errors_give_the_largest(self) -> None:
        assert regression.margin(np.array([3.0, 1.0]), 0.9) == 3.0

    def test_a_row_of_weight_three_counts_like_three_rows(self) -> None:
        random = np.random.default_rng(2)
        errors, weights = np.abs(random.normal(size=200)), random.integers(1, 5, 200).astype(float)
        for level in (0.5, 0.8, 0.9, 0.95):
            assert regression.margin(errors, level, np.full(200, 0.3)) == regression.margin(errors, level)
            repeated = np.sort(np.repeat(errors, weights.astype(int)))
            near = int(level * len(repeated))
            # The new row counts as one of the mean weight, so the two ranks differ by two rows at most.
            assert repeated[near - 1] <= regression.margin(errors, level, weights) <= repeated[near + 5]

    def test_a_share_of_grouped_or_weighted_rows(self) -> None:
        hits = np.repeat(np.arange(40) < 30, 5)
        options = {"resamples": 2000, "confidence": 0.95, "seed": 1}
        alone = scores.proportion(hits, **options)  # type: ignore[arg-type]
        grouped = scores.proportion(hits, **options, groups=np.repeat(np.arange(40), 5))  # type: ignore[arg-type]
        weighted = scores.proportion(hits, **options, weights=np.where(hits, 1.0, 3.0))  # type: ignore[arg-type]
        assert alone.value == grouped.value == 0.75
        assert (grouped.high or 0) - (grouped.low or 0) > 1.8 * ((alone.high or 0) - (alone.low or 0))
        assert weighted.value == 0.5

    def test_a_share_of_rows_has_an_interval(self) -> None:
        found = scores.proportion(np.arange(200) < 180, resamples=2000, confidence=0.95, seed=1)
        assert found.value == 0.9
        assert found.low == pytest.approx(0.855, abs=0.01)
        assert found.high == pytest.approx(0.94, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_intervals_of_many_rows_are_those_of_all_though_few_are_drawn_from(
    task: Task, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their middle is the value on all rows, and their width that of a bootstrap of all."""
    random = np.random.default_rng(0)
    rows = 8000
    # Rows of a group are alike, so their interval is wider than that of as many single rows.
    groups = np.arange(rows) // 8 if grouped else None
    noise = np.repeat(random.normal(size=rows // 8), 8) if grouped else random.normal(size=rows)
    target: np.ndarray = (noise > 0).astype(np.int64) if task == "classification" else noise
    guess = 1 / (1 + np.exp(-noise - random.normal(size=rows)))
    answers: Answers = (
        ((guess > 0.5).astype(np.int64), np.column_stack([1 - guess, guess]))
        if task == "classification"
        else (noise + random.normal(size=rows),)
    )

    def found() -> dict[str, Score]:
        return scores.with_intervals(
            scores.of(task), target, answers, resamples=1000, confidence=0.95, seed=7, groups=groups
        )

    whole = found()
    monkeypatch.setattr(scores, "MOST_ROWS", 2000)
    part = found()
    for name in ("accuracy", "log_loss", "roc_auc") if task == "classification" else ("r2", "mae", "rmse"):
        assert part[name].value == whole[name].value
        low, high = part[name].low, part[name].high
        assert low is not None
        assert high is not None
        assert low < part[name].value < high
        width = (whole[name].high or 0) - (whole[name].low or 0)
        assert high - low == pytest.approx(width, rel=0.2)
